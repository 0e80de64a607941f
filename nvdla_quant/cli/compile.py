"""``nvdla-quant compile``."""

from pathlib import Path
from typing import Annotated

import typer

from nvdla_quant.cli.options import (
    DEFAULT_TARGET,
    Caffemodel,
    ComputePrecision,
    ConfigTarget,
    CutAt,
    InputShape,
    LoadablePrecision,
    Mode,
    Onnx,
    Output,
    Prototxt,
    WeightStepsFile,
    existing,
    network_of,
    with_weights,
)
from nvdla_quant.compiler.compile import compile_network
from nvdla_quant.compiler.lowering.price import Objective
from nvdla_quant.hardware.spec import target_of
from nvdla_quant.hardware.targets import QuantizationMode
from nvdla_quant.jobs.files import write_bytes, write_json
from nvdla_quant.table.table import read_table


def command(
    output: Output,
    prototxt: Prototxt = None,
    caffemodel: Caffemodel = None,
    onnx: Onnx = None,
    input_shape: InputShape = None,
    cut_at: CutAt = None,
    calibtable: Annotated[Path | None, typer.Option(callback=existing, help="Calibration table (int8).")] = None,
    configtarget: ConfigTarget = DEFAULT_TARGET,
    cprecision: ComputePrecision = LoadablePrecision.INT8,
    quantization_mode: Mode = QuantizationMode.PER_KERNEL,
    weight_steps: WeightStepsFile = None,
    keep_apart: Annotated[
        bool,
        typer.Option(
            "--keep-apart/--for-silicon",
            help="Whether a convolution waits for the one before where they divide the buffer differently: the C-model "
            "needs that, hardware does it itself.",
        ),
    ] = True,
    objective: Annotated[
        Objective, typer.Option(help="What the buffer is divided by: estimated cycles, or bytes that are moved.")
    ] = Objective.CYCLES,
    report: Annotated[Path | None, typer.Option(help="Also write what was compiled, as JSON.")] = None,
) -> None:
    """Compile a network to a loadable; options and values are nvdla_compiler's."""
    network = with_weights(network_of(prototxt, caffemodel, onnx, input_shape, cut_at), weight_steps)
    table = read_table(calibtable) if calibtable is not None else None
    mode = quantization_mode if cprecision is LoadablePrecision.INT8 else None
    compilation = compile_network(
        network, table, target_of(configtarget), cprecision, mode, keep_apart=keep_apart, objective=objective
    )
    write_bytes(output, compilation.data)
    if report is not None:
        write_json(report, compilation.report)
