"""``nvdla-quant verify``."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nvdla_quant.cli.options import (
    AsJson,
    Caffemodel,
    CutAt,
    InputShape,
    LoadableFile,
    Onnx,
    Prototxt,
    RunTarget,
    WeightStepsFile,
    existing,
    network_of,
    read_array,
    with_weights,
)
from nvdla_quant.compiler.claim.file import read_claim
from nvdla_quant.emulator.decode.program import default_target
from nvdla_quant.errors import DatasetError
from nvdla_quant.hardware.spec import target_of
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.table.table import read_table
from nvdla_quant.verification.judgement.verdicts import Cause, Judgement
from nvdla_quant.verification.text import PLAIN_WIDTH, render_verification
from nvdla_quant.verification.verify import SEARCH_SECONDS, write_layers
from nvdla_quant.verification.verify import verify as verify_loadable

WRONG = 4
"""Exit status of `verify` where the loadable is wrong, or far from the float network."""
UNKNOWN = 5
"""Exit status of `verify` where nothing can be said."""


def command(
    loadable: LoadableFile,
    images: Annotated[
        Path, typer.Option(callback=existing, help="[N, C, H, W] in the network's own domain; 4 to 16 images do.")
    ],
    prototxt: Prototxt = None,
    caffemodel: Caffemodel = None,
    onnx: Onnx = None,
    input_shape: InputShape = None,
    cut_at: CutAt = None,
    calibtable: Annotated[
        Path | None, typer.Option(callback=existing, help="The table that it was compiled with (int8).")
    ] = None,
    weight_steps: WeightStepsFile = None,
    configtarget: RunTarget = None,
    layers: Annotated[Path | None, typer.Option(help="Also write one line a layer, as TSV.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="What `compile --report` wrote: it says what operations do.")
    ] = None,
    time_limit: Annotated[float, typer.Option(min=0, help="Seconds to find out what operations do.")] = SEARCH_SECONDS,
    as_json: AsJson = False,
) -> None:
    """Compare a loadable with the float network, layer by layer, and say what is wrong.

    Exit status 0: ok; 4: it is wrong, or far from the float network; 5: nothing can be said.
    """
    content = read_loadable(loadable)
    target = target_of(configtarget) if configtarget else default_target(content)
    table = read_table(calibtable) if calibtable is not None else None
    array = read_array(images)
    if array.dtype.kind not in "fiu":
        raise DatasetError(f"{images}: holds {array.dtype}, expected numbers")
    claim = None if report is None else read_claim(report)
    network = with_weights(network_of(prototxt, caffemodel, onnx, input_shape, cut_at), weight_steps)
    verification = verify_loadable(content, network, table, array, target, claim, time_limit)
    if layers is not None:
        write_layers(layers, verification)
    if as_json:
        print(json.dumps(verification.as_json(), indent=2))
    else:
        width = None if sys.stdout.isatty() else PLAIN_WIDTH
        Console(width=width, highlight=False).print(render_verification(verification))
    if weight_steps is None and verification.verdict.cause in (Cause.WEIGHTS, Cause.RESULT):
        hint = "what `refine` or `search` changed is no fault where --weight-steps has the file that was compiled with"
        print(f"note: {hint}", file=sys.stderr)
    print(f"target: {target.name}{'' if configtarget else ' (from the loadable)'}", file=sys.stderr)
    if verification.verdict.verdict is not Judgement.OK:
        raise typer.Exit(UNKNOWN if verification.verdict.verdict is Judgement.UNKNOWN else WRONG)
