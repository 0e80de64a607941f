"""The command line: the functions of the workflow, one file at a time.

Bad usage and bad input end with exit status 2 and one line on standard error; outputs are written whole or not at all.
"""

import difflib
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nvdla_quant import __version__
from nvdla_quant.calibration.cpu import Calibrator, calibrate
from nvdla_quant.compiler import compile_network
from nvdla_quant.compiler.claim_file import read_claim
from nvdla_quant.emulator.decode.program import DEFAULT_LIMITS, Limits, decode, default_target
from nvdla_quant.emulator.operations import Fp16
from nvdla_quant.emulator.run import run, write_steps
from nvdla_quant.errors import DatasetError, NvdlaQuantError
from nvdla_quant.hardware.targets import Precision, QuantizationMode, target_of
from nvdla_quant.jobs.files import atomic_path, write_bytes, write_json
from nvdla_quant.jobs.provenance import differences, read_manifest
from nvdla_quant.loadable.describe import describe, render
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.network.caffe.reader import LayersError, read_network, read_structure, unreadable
from nvdla_quant.network.findings import Finding
from nvdla_quant.network.graph import Network
from nvdla_quant.network.passes import prepare
from nvdla_quant.runtime.dimg import read_dimg, write_dimg_text
from nvdla_quant.runtime.emulator import FP16_EXACTNESS
from nvdla_quant.support.check import check as check_support
from nvdla_quant.table.cache import write_cache
from nvdla_quant.table.changes import write_changes
from nvdla_quant.table.fix import fix_table as fix
from nvdla_quant.table.foreign import read_cache_of, read_scales
from nvdla_quant.table.table import read_table, write_table
from nvdla_quant.verification.text import PLAIN_WIDTH, render_verification
from nvdla_quant.verification.verdicts import Judgement
from nvdla_quant.verification.verify import SEARCH_SECONDS, write_layers
from nvdla_quant.verification.verify import verify as verify_loadable

USAGE_ERROR = cast(type[typer.BadParameter], typer.BadParameter.__mro__[1])
"""Bad usage of any kind: click's UsageError, which newer versions of typer bring along under a private name."""
NOT_SUPPORTED = 3
"""Exit status of `check` where a target cannot run the network."""
WRONG = 4
"""Exit status of `verify` where the loadable is wrong, or far from the float network."""
UNKNOWN = 5
"""Exit status of `verify` where nothing can be said."""

app = typer.Typer(
    name="nvdla-quant",
    help="Quantize Caffe classifiers for NVDLA, and run loadables exactly as the hardware does.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Method(StrEnum):
    """Calibration methods."""

    ENTROPY = "entropy"
    MINMAX = "minmax"
    PERCENTILE = "percentile"


class TargetName(StrEnum):
    """Hardware configurations."""

    NV_FULL = "nv_full"
    NV_LARGE = "nv_large"
    NV_SMALL = "nv_small"


class LoadablePrecision(StrEnum):
    """Precisions of a loadable."""

    FP16 = "fp16"
    INT8 = "int8"


def _existing(path: Path | None) -> Path | None:
    """Refuse a file to read that is not there, before anything is done; the option's name goes before the message."""
    if path is None or path.is_file():
        return path
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder; give the path of a file in it")
    if not path.parent.is_dir():
        raise typer.BadParameter(f"{path}: no such file, nor the folder {path.parent}; check the path")
    close = difflib.get_close_matches(path.name, sorted(other.name for other in path.parent.iterdir()), 1)
    hint = f" (did you mean {path.parent / close[0]}?)" if close else ""
    raise typer.BadParameter(f"{path}: no such file{hint}; check the path, which starts at the working directory")


Prototxt = Annotated[Path, typer.Option("--prototxt", callback=_existing, help="The network's deploy prototxt.")]
Caffemodel = Annotated[Path, typer.Option("--caffemodel", callback=_existing, help="The network's trained weights.")]
Output = Annotated[Path, typer.Option("--output", help="The file to write.")]
LoadableFile = Annotated[
    Path, typer.Argument(metavar="LOADABLE", callback=_existing, help="A .nvdla file, NVIDIA's or ours.")
]
ConfigTarget = Annotated[TargetName, typer.Option("--configtarget", help="Hardware configuration.")]
RunTarget = Annotated[
    TargetName | None,
    typer.Option("--configtarget", help="Hardware; default: nv_small where feature atoms are 8 bytes, else nv_full."),
]
ComputePrecision = Annotated[LoadablePrecision, typer.Option("--cprecision", help="Precision of the loadable.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _version(value: bool) -> None:
    if value:
        print(f"nvdla-quant {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


def _read_array(path: Path) -> NDArray[Any]:
    """Read the array in an ``.npy`` file."""
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"{path}: not a readable .npy array ({error})") from error
    if not isinstance(array, np.ndarray):
        raise DatasetError(f"{path}: an .npz archive, expected one array in an .npy file")
    return array


def _bar(what: str) -> Progress:
    """Return a progress bar on standard error, which shows nothing where that is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


@app.command()
def inspect(loadable: LoadableFile, as_json: AsJson = False) -> None:
    """Show what a loadable holds: tensors, memory, tasks, operations."""
    description = describe(read_loadable(loadable))
    print(json.dumps(description, indent=2) if as_json else render(description))


@app.command()
def emulate(
    loadable: LoadableFile,
    input_file: Annotated[
        Path, typer.Option("--input", callback=_existing, help="[N, C, H, W] int8, int16 or float16, device's domain.")
    ],
    output: Output,
    steps: Annotated[Path | None, typer.Option(help="Folder for the output of every operation.")] = None,
    rawdump: Annotated[Path | None, typer.Option(help="Also write image 0 as nvdla_runtime's --rawdump does.")] = None,
    configtarget: RunTarget = None,
    fp16: Annotated[
        Fp16, typer.Option(help="exact: the hardware's bits; fast: convolutions summed in float32, much faster.")
    ] = Fp16.EXACT,
    max_macs: Annotated[int, typer.Option(min=0, help="Refuse loadables of more multiplications an image.")] = (
        DEFAULT_LIMITS.macs
    ),
    max_memory: Annotated[int, typer.Option(min=0, help="Refuse loadables that declare more bytes of memory.")] = (
        DEFAULT_LIMITS.memory
    ),
) -> None:
    """Run a loadable as the hardware would."""
    content = read_loadable(loadable)
    target = target_of(configtarget) if configtarget else default_target(content)
    program = decode(content, target, Limits(max_macs, max_memory))
    images = _read_array(input_file)
    with _bar("images") as bar:
        task = bar.add_task("images", total=len(images))
        progress = lambda done, total: bar.update(task, completed=done, total=total)  # noqa: E731
        result = run(program, images, fp16=fp16, progress=progress)
    for warning in program.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if steps is not None:
        write_steps(program, images, steps, fp16=fp16)
    if rawdump is not None:
        write_dimg_text(rawdump, result[0])
    with atomic_path(output) as temporary, temporary.open("wb") as file:
        np.save(file, result)
    print(f"target: {target.name}{'' if configtarget else ' (from the loadable)'}", file=sys.stderr)
    if program.precision is Precision.FP16:
        print(f"fp16: {FP16_EXACTNESS[fp16]}", file=sys.stderr)


@app.command("compile")
def compile_(
    prototxt: Prototxt,
    caffemodel: Caffemodel,
    output: Output,
    calibtable: Annotated[Path | None, typer.Option(callback=_existing, help="Calibration table (int8).")] = None,
    configtarget: ConfigTarget = TargetName.NV_FULL,
    cprecision: ComputePrecision = LoadablePrecision.INT8,
    quantization_mode: Annotated[
        QuantizationMode, typer.Option("--quantizationMode", help="How weights share scales (int8).")
    ] = QuantizationMode.PER_KERNEL,
    report: Annotated[Path | None, typer.Option(help="Also write what was compiled, as JSON.")] = None,
) -> None:
    """Compile a network to a loadable; options and values are nvdla_compiler's."""
    network = read_network(prototxt, caffemodel)
    table = read_table(calibtable) if calibtable is not None else None
    mode = quantization_mode if cprecision is LoadablePrecision.INT8 else None
    compilation = compile_network(network, table, target_of(configtarget), cprecision, mode)
    write_bytes(output, compilation.data)
    if report is not None:
        write_json(report, compilation.report)


@app.command("calibrate")
def calibrate_(
    prototxt: Prototxt,
    caffemodel: Caffemodel,
    images: Annotated[
        Path, typer.Option(callback=_existing, help="[N, C, H, W] in the network's own domain, after preprocessing.")
    ],
    output: Output,
    method: Annotated[Method, typer.Option(help="How to choose clipping thresholds.")] = Method.ENTROPY,
    batch_size: Annotated[int, typer.Option(help="Images at once; changes the result of entropy.")] = 64,
    percentile: Annotated[float | None, typer.Option(help="Per cent of the magnitudes to keep.")] = None,
) -> None:
    """Find the scale of each tensor; writes TensorRT's cache format."""
    calibrator = Calibrator(method.value, batch_size, percentile)
    network = read_network(prototxt, caffemodel)
    inputs = _read_array(images).astype(np.float32)
    with _bar("images") as bar:
        task = bar.add_task("images", total=len(inputs))
        progress = lambda done, total: bar.update(task, completed=done, total=total)  # noqa: E731
        write_cache(calibrate(network, inputs, calibrator, progress=progress), output)


@app.command()
def convert_cache(
    cache: Annotated[
        Path, typer.Argument(metavar="CACHE", callback=_existing, help="A calibration cache, or a table in JSON.")
    ],
    output: Output,
) -> None:
    """Write a calibration cache, or another table whose numbers mean the same, as JSON, names as they are."""
    write_table(read_scales(cache), output)


@app.command()
def fix_table(
    prototxt: Prototxt,
    cache: Annotated[
        Path, typer.Option(callback=_existing, help="A calibration cache, TensorRT's or ours, or a table in JSON.")
    ],
    output: Output,
    unify: Annotated[bool, typer.Option(help="Make scales agree that the hardware cannot change.")] = True,
    changes: Annotated[Path | None, typer.Option(help="Also write each mapping and change, as TSV.")] = None,
    preparation: Annotated[str, typer.Option(help="fold or as-is: the form that will be compiled.")] = "as-is",
) -> None:
    """Make the calibration table that a compiler takes: layer names, scales that agree."""
    network = read_structure(prototxt)
    table, listed = fix(network, prepare(network, preparation), read_cache_of(network, cache), unify_scales=unify)
    if changes is not None:
        write_changes(listed, changes)
    write_table(table, output)


@app.command()
def check(
    prototxt: Prototxt,
    caffemodel: Annotated[Path | None, typer.Option(callback=_existing, help="The network's trained weights.")] = None,
    configtarget: ConfigTarget = TargetName.NV_FULL,
    cprecision: ComputePrecision = LoadablePrecision.INT8,
    as_json: AsJson = False,
) -> None:
    """Say what a target cannot run of a network, all of it; exit status 3 where that is anything."""
    target = target_of(configtarget)
    unread: tuple[Finding, ...] = ()
    network: Network | None
    try:
        network = read_structure(prototxt) if caffemodel is None else read_network(prototxt, caffemodel)
    except LayersError as error:
        if not all(problem.is_unsupported for problem in error.problems):
            raise
        network, unread = error.known, unreadable(error.problems)
    findings = (*unread, *(() if network is None else check_support(network, target, cprecision)))
    if as_json:
        print(json.dumps({"findings": [vars(finding) for finding in findings]}, indent=2))
    else:
        for finding in findings:
            advice = f" Instead: {finding.rewrite}." if finding.rewrite else ""
            print(f"{finding.severity}: {finding.layer or 'network'} [{finding.rule}]: {finding.message}.{advice}")
        if network is not None and not any(finding.severity == "error" for finding in findings):
            count = sum(not layer.inner for layer in network.layers)
            print(f"{configtarget} runs all {count} layers in {cprecision}")
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(NOT_SUPPORTED)


@app.command()
def verify(
    loadable: LoadableFile,
    prototxt: Prototxt,
    caffemodel: Caffemodel,
    images: Annotated[
        Path, typer.Option(callback=_existing, help="[N, C, H, W] in the network's own domain; 4 to 16 images do.")
    ],
    calibtable: Annotated[
        Path | None, typer.Option(callback=_existing, help="The table that it was compiled with (int8).")
    ] = None,
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
    array = _read_array(images)
    if array.dtype.kind not in "fiu":
        raise DatasetError(f"{images}: holds {array.dtype}, expected numbers")
    claim = None if report is None else read_claim(report)
    network = read_network(prototxt, caffemodel)
    verification = verify_loadable(content, network, table, array, target, claim, time_limit)
    if layers is not None:
        write_layers(layers, verification)
    if as_json:
        print(json.dumps(verification.as_json(), indent=2))
    else:
        width = None if sys.stdout.isatty() else PLAIN_WIDTH
        Console(width=width, highlight=False).print(render_verification(verification))
    print(f"target: {target.name}{'' if configtarget else ' (from the loadable)'}", file=sys.stderr)
    if verification.verdict.verdict is not Judgement.OK:
        raise typer.Exit(UNKNOWN if verification.verdict.verdict is Judgement.UNKNOWN else WRONG)


@app.command()
def top(
    dimg: Annotated[
        Path,
        typer.Argument(metavar="DIMG", callback=_existing, help="An output.dimg of nvdla_runtime, text or binary."),
    ],
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 5,
    labels: Annotated[
        Path | None, typer.Option(callback=_existing, help="A text file with one class name a line.")
    ] = None,
) -> None:
    """Print the k highest scores of a raw dump: 0-based index, value, label."""
    values = read_dimg(dimg, edited=True).reshape(-1)
    names = labels.read_text(encoding="utf-8").splitlines() if labels is not None else []
    for index in np.argsort(-values.astype(np.float64), kind="stable")[:k]:
        print(f"{index}\t{values[index]}\t{names[index] if index < len(names) else ''}".rstrip())


@app.command("compare-manifests")
def compare_manifests(
    first: Annotated[Path, typer.Argument(callback=_existing, help="A manifest.json.")],
    second: Annotated[Path, typer.Argument(callback=_existing, help="Another, of another run or machine.")],
) -> None:
    """List the artefacts that differ between two runs, and why; exit status 1 where any does."""
    found = differences(*map(read_manifest, (first, second)))
    for name, why in found:
        print(f"{name}\t{why}")
    if found:
        raise typer.Exit(1)
    print("the artefacts of both are the same bytes", file=sys.stderr)


def main() -> None:
    """Run the command line."""
    try:
        status = app(standalone_mode=False)
    except typer.Abort:
        status = 130
    except USAGE_ERROR as error:
        print(f"nvdla-quant: {error.format_message()}", file=sys.stderr)
        status = 2
    except NvdlaQuantError as error:
        print(f"nvdla-quant: {error}", file=sys.stderr)
        status = 2
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        print(f"nvdla-quant: {where}{error.strerror or error}; check the path and its permissions", file=sys.stderr)
        status = 2
    sys.exit(status)
