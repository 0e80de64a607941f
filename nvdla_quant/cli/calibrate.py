"""``nvdla-quant calibrate``."""

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import typer

from nvdla_quant.calibration.cpu import Calibrator, MeasuringMethod, calibrate_and_judge
from nvdla_quant.calibration.qdq import QdqRanges as QdqHandling
from nvdla_quant.calibration.qdq import take_scales
from nvdla_quant.cli.options import (
    Caffemodel,
    CutAt,
    InputShape,
    Onnx,
    Output,
    Prototxt,
    bar_of,
    check_one_network,
    existing,
    network_of,
    read_array,
    shape_of,
)
from nvdla_quant.network.files import import_onnx
from nvdla_quant.table.cache import write_cache


class Method(StrEnum):
    """Calibration methods."""

    ENTROPY = "entropy"
    MINMAX = "minmax"
    PERCENTILE = "percentile"
    MSE = "mse"
    COSINE = "cosine"
    QDQ = "qdq"


class QdqRanges(StrEnum):
    """What becomes of ranges that int8 around 0 does not have."""

    REFUSE = "refuse"
    COVER = "cover"


def command(
    output: Output,
    images: Annotated[
        Path | None,
        typer.Option(
            callback=existing, help="[N, C, H, W] in the network's own domain, after preprocessing; none with qdq."
        ),
    ] = None,
    prototxt: Prototxt = None,
    caffemodel: Caffemodel = None,
    onnx: Onnx = None,
    input_shape: InputShape = None,
    cut_at: CutAt = None,
    method: Annotated[
        Method, typer.Option(help="How to choose clipping thresholds; qdq: the scales in a quantized ONNX model.")
    ] = Method.ENTROPY,
    batch_size: Annotated[int, typer.Option(help="Images at once; changes the result of entropy.")] = 64,
    percentile: Annotated[float | None, typer.Option(help="Per cent of the magnitudes to keep.")] = None,
    qdq_ranges: Annotated[
        QdqRanges | None, typer.Option(help="With qdq, ranges that are not int8 around 0: refuse, or cover each.")
    ] = None,
) -> None:
    """Find the scale of each tensor; writes TensorRT's cache format."""
    if method is Method.QDQ:
        if images is not None or percentile is not None:
            given = "--images" if images is not None else "--percentile"
            raise typer.BadParameter(f"{given} with --method qdq, which takes the scales that the model has in it")
        if onnx is None:
            raise typer.BadParameter("--method qdq takes the scales of a quantized ONNX model; give it by --onnx")
        check_one_network(prototxt, caffemodel, onnx, input_shape)
        _take(onnx, input_shape, cut_at, output, (qdq_ranges or QdqRanges.REFUSE).value)
        return
    if qdq_ranges is not None:
        raise typer.BadParameter(f"--qdq-ranges goes with --method qdq, not with {method.value}")
    if images is None:
        raise typer.BadParameter(f"no images: --method {method.value} measures them; give --images FILE")
    calibrator = Calibrator(cast(MeasuringMethod, method.value), batch_size, percentile)
    network = network_of(prototxt, caffemodel, onnx, input_shape, cut_at)
    inputs = read_array(images).astype(np.float32)
    with bar_of("images") as bar:
        task = bar.add_task("images", total=len(inputs))
        progress = lambda done, total: bar.update(task, completed=done, total=total)  # noqa: E731
        found = calibrate_and_judge(network, inputs, calibrator, threads=os.cpu_count() or 1, progress=progress)
        write_cache(found.cache, output)
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _take(
    onnx: Path, input_shape: str | None, cut_at: Sequence[str] | None, output: Path, handling: QdqHandling
) -> None:
    """Write the scales that a quantized model has in it, and say which are not as they stand there."""
    imported = import_onnx(onnx, shape_of(input_shape), cut_at or ())
    taken = take_scales(imported.network, imported.ranges, handling)
    for remark in imported.remarks:
        print(f"note: {remark}", file=sys.stderr)
    for change in taken.changes:
        if change.rule not in ("file", "fused"):
            print(f"note: {change.name!r}: {change.scale_after:.9g}, {change.rule}: {change.reason}", file=sys.stderr)
    write_cache(taken.cache, output)
