"""Networks that people deploy: what compiles, how near to fp32 it is, what it is called, and what that takes.

usage: python -m benchmarks.gallery [--side full|reduced] [--networks NAME ...] [--onnx FILE ...] [--targets NAME ...]
                                    [--images 8]

Each network of ``tests/networks`` (He-random weights, a min-max table over the images that are shown) for nv_small,
nv_large and nv_full in int8, both quantization modes, and for nv_full in fp16, in one process on one thread; from the
checkout's root. Prints Markdown: one line a network, target, precision and mode, with cosine and correlation (the mean
over the images subtracted) of the tensor before Softmax beside fp32, the verdict, and seconds to compile, to emulate
all images and to verify. What `check` refuses says by which rule. Progress goes to standard error, and each line is
printed as soon as it is known. ``--onnx`` takes ONNX files in place of the networks of ``tests/networks``;
``--no-verify`` leaves verdicts out. The first run in a checkout compiles the emulator's kernels, which counts as
emulation.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.operations import Fp16
from nvdla_quant.errors import NvdlaQuantError
from nvdla_quant.hardware.targets import NV_FULL, NV_LARGE, NV_SMALL, Precision, QuantizationMode, Target
from nvdla_quant.network.graph import Network
from nvdla_quant.network.onnx.reader import read_onnx
from nvdla_quant.support.check import check
from nvdla_quant.table.table import CalibrationTable
from tests.networks import GALLERY
from tests.verified import Case, case_of, correlation, cosine, float_scores, minmax_table, smooth_images

HEAD = (
    "network",
    "target",
    "variant",
    "cosine",
    "correlation",
    "verdict",
    "compile s",
    "emulate s",
    "verify s",
    "verify / emulate",
)
VARIANTS: tuple[tuple[Target, Precision, QuantizationMode | None], ...] = (
    *((target, Precision.INT8, mode) for target in (NV_SMALL, NV_LARGE, NV_FULL) for mode in QuantizationMode),
    (NV_FULL, Precision.FP16, None),
)
BATCH = 4
"""Images that calibration and fp32 compute at once: the activations of VGG-16 take 60 MB each."""


@dataclass(frozen=True)
class Subject:
    """A network with a table over some images, and what fp32 makes of them."""

    name: str
    network: Network
    table: CalibrationTable
    images: NDArray[np.float32]
    expected: NDArray[np.float32]


def main(arguments: list[str]) -> int:
    """Print the table; 1 where a verdict is not ``ok`` or something failed, else 0."""
    options = _parser().parse_args(arguments)
    print(_line(HEAD))
    print(_line(["---"] * len(HEAD)))
    right = True
    for name, make in _networks(options).items():
        _say(f"{name}: weights, table, fp32")
        subject = _subject(name, make(), options.images)
        for target, precision, mode in VARIANTS:
            if target.name not in options.targets:
                continue
            _say(f"{name}: {target.name} {_variant(precision, mode)}")
            cells = list(_cells(subject, target, precision, mode, not options.no_verify))
            right &= cells[2] in ("ok", "") or cells[2].startswith("refused")
            print(_line([name, target.name, _variant(precision, mode), *cells]), flush=True)
    return 0 if right else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", choices=("full", "reduced"), default="reduced", help="size of the networks")
    parser.add_argument("--networks", nargs="+", choices=list(GALLERY), default=list(GALLERY), metavar="NAME")
    targets = list(dict.fromkeys(target.name for target, _, _ in VARIANTS))
    parser.add_argument("--targets", nargs="+", choices=targets, default=targets, metavar="NAME")
    parser.add_argument("--onnx", nargs="+", type=Path, default=[], metavar="FILE", help="ONNX files in their place")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--no-verify", action="store_true", help="compile and emulate alone")
    return parser


def _networks(options: argparse.Namespace) -> dict[str, Callable[[], Network]]:
    """Return what makes each network, by its name."""
    if options.onnx:
        return {path.stem: lambda path=path: read_onnx(path).network for path in options.onnx}
    entries = {name: GALLERY[name] for name in options.networks}
    return {name: entry.full if options.side == "full" else entry.reduced for name, entry in entries.items()}


def _subject(name: str, network: Network, count: int) -> Subject:
    images = smooth_images(network.only_input.chw, count)
    table = minmax_table(network, images, BATCH)
    parts = [float_scores(network, images[first : first + BATCH]) for first in range(0, count, BATCH)]
    return Subject(name, network, table, images, np.concatenate(parts))


def _cells(
    subject: Subject, target: Target, precision: Precision, mode: QuantizationMode | None, verified: bool
) -> Iterator[str]:
    """Yield cosine, correlation, verdict and seconds; the verdict alone where there are no others."""
    found = check(subject.network, target, precision)
    if rules := sorted({finding.rule for finding in found if finding.severity == "error"}):
        yield from ("", "", f"refused: {', '.join(rules)}", "", "", "", "")
        return
    try:
        start = time.perf_counter()
        case = case_of(subject.network, subject.table, subject.images, target, precision, mode)
        compiled = time.perf_counter()
        scores = case.scores(Fp16.FAST)  # As verification runs it.
    except NvdlaQuantError as error:
        yield from ("", "", _failure(error), "", "", "", "")
        return
    emulated = time.perf_counter() - compiled
    yield f"{cosine(scores, subject.expected):.4f}"
    yield f"{correlation(scores, subject.expected):.3f}"
    start_verify = time.perf_counter()
    yield _verdict(case) if verified else ""
    took = time.perf_counter() - start_verify
    yield f"{compiled - start:.2f}"
    yield f"{emulated:.2f}"
    yield from (f"{took:.2f}", f"{took / emulated:.1f}") if verified else ("", "")


def _verdict(case: Case) -> str:
    """Judge a loadable; whatever goes wrong in it is a cell of the table, since the others still count."""
    try:
        verdict = case.verify().verdict
    except Exception as error:
        return _failure(error)
    layer = f" at {verdict.first_bad_layer}" if verdict.first_bad_layer else ""
    return f"{verdict.verdict}{layer}"


def _failure(error: Exception) -> str:
    return f"failed: {type(error).__name__}: {error}".replace("|", "/").replace("\n", " ")


def _variant(precision: Precision, mode: QuantizationMode | None) -> str:
    return precision.value if mode is None else f"{precision.value} {mode.value}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
