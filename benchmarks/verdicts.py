"""Verdicts on golden loadables, as the table in docs/verify.md.

usage: python -m benchmarks.verdicts GOLDEN

GOLDEN holds ``loadables/<model>-<target>-<variant>/`` and ``models/<model>/``; each loadable is verified on the inputs
of its ``vectors.npz``, with the table that it was compiled with. Prints Markdown; the figures are of the tensor before
a final softmax: cosine, and correlation with each channel's mean subtracted, beside fp32 and beside the simulation.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nvdla_quant.errors import NvdlaQuantError
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.network.caffe.reader import read_network
from nvdla_quant.table.table import read_table
from nvdla_quant.verification.judgement.verdicts import Verdict, Weight
from nvdla_quant.verification.measures.comparison import Comparison
from nvdla_quant.verification.verify import Verification, verify

HEAD = ("loadable", "verdict", "first bad layer", "causes", "fp32", "simulated int8", "largest local error")


def main(arguments: list[str]) -> int:
    """Print the table; 0, or 2 where GOLDEN is no such folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("golden", type=Path)
    golden = parser.parse_args(arguments).golden
    loadables = sorted((golden / "loadables").glob("*/loadable.nvdla"))
    if not loadables:
        print(f"{golden}: no loadables/*/loadable.nvdla", file=sys.stderr)
        return 2
    print(_line(HEAD))
    print(_line(["---"] * len(HEAD)))
    for path in loadables:
        print(_line(_cells(golden, path.parent)))
    return 0


def _line(cells: Iterator[str] | tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cells(golden: Path, folder: Path) -> tuple[str, ...]:
    name = f"`{folder.name}`"
    try:
        verification = _verify(golden, folder)
    except NvdlaQuantError as error:
        return name, "not run", "", str(error).replace("|", "/"), "", "", ""
    verdict = verification.verdict
    wrong = max((float(row["local_error"]) for row in verification.rows), default=np.nan)
    layer = f"`{verdict.first_bad_layer}`" if verdict.first_bad_layer else ""
    figures = (
        "" if verdict.fp32 is None else _figures(verdict.fp32),
        "" if verdict.simulated is None else _figures(verdict.simulated),
    )
    return name, str(verdict.verdict), layer, _causes(verdict), *figures, f"{wrong:.3g}"


def _causes(verdict: Verdict) -> str:
    """Return the cause in bold, then the other findings but remarks."""
    others = [finding.cause for finding in verdict.findings if finding.weight is not Weight.REMARK]
    first = [] if verdict.cause is None else [f"**{verdict.cause}**"]
    return ", ".join([*first, *dict.fromkeys(str(cause) for cause in others if cause is not verdict.cause)])


def _figures(comparison: Comparison) -> str:
    return f"{comparison.cosine:.4f}, {comparison.correlation:.4f}"


def _verify(golden: Path, folder: Path) -> Verification:
    models = [path for path in (golden / "models").iterdir() if folder.name.startswith(f"{path.name}-")]
    model = max(models, key=lambda path: len(path.name))
    network = read_network(model / "deploy.prototxt", model / "model.caffemodel")
    with np.load(folder / "vectors.npz") as vectors:
        inputs = vectors["input"][:, : network.only_input.chw[0]]
    content = read_loadable(folder / "loadable.nvdla")
    if inputs.dtype == np.float16:
        return verify(content, network, None, inputs.astype(np.float32))
    table = read_table(folder / "calibration.fixed.json")
    return verify(content, network, table, inputs.astype(np.float32) * np.float32(table[network.only_input.name]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
