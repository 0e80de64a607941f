"""What dividing the convolution buffer by estimated cycles gains over dividing it by bytes.

usage: python -m benchmarks.objective [--networks NAME ...] [--targets NAME ...]

The shipped networks and topologies of ``tests/networks`` at full size (random weights, a min-max table of one image),
int8 per-filter, compiled twice: ``--objective bytes``, the baseline, and ``--objective cycles``. Prints Markdown: one
line a network and target with the estimated cycles of the whole network, their ratio, and the bytes of memory that both
move; exit status 1 where ``cycles`` is slower. From the checkout's root; progress goes to standard error.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from nvdla_quant.compiler.compile import compile_network
from nvdla_quant.compiler.lowering.price import Objective
from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.estimation.estimate import Estimate, estimate
from nvdla_quant.hardware.targets import TARGETS, Precision, QuantizationMode, Target
from nvdla_quant.network.caffe.reader import read_network
from nvdla_quant.network.graph import Network
from nvdla_quant.network.passes import prepare
from nvdla_quant.support.check import check
from nvdla_quant.table.table import CalibrationTable
from nvdla_quant.timing.memory import memory_of
from tests.networks import GALLERY
from tests.verified import minmax_table, smooth_images

CHECKOUT = Path(__file__).resolve().parents[1]
SHIPPED = {"lenet": "lenet-mnist", "resnet20-fashion": "resnet20-fashion-mnist"}
TOPOLOGIES = (
    *("alexnet", "googlenet", "mobilenet-v1", "resnet18", "resnet50", "vgg16", "squeezenet-1.1", "nin"),
    *("mobilenet-v2", "densenet121"),
)
HEAD = ("network", "target", "cycles, bytes", "cycles, cycles", "gain", "MB, bytes", "MB, cycles")


def networks() -> Mapping[str, Callable[[], Network]]:
    """Return what makes each network, by its name."""
    return {name: lambda name=name: _shipped(SHIPPED[name]) for name in SHIPPED} | {
        name: GALLERY[name].full for name in TOPOLOGIES
    }


def _shipped(folder: str) -> Network:
    resources = CHECKOUT / "resources" / folder
    return read_network(resources / "deploy.prototxt", next(resources.glob("*.caffemodel")))


def estimates(network: Network, table: CalibrationTable, target: Target) -> dict[Objective, Estimate]:
    """Return the estimates of what a network is compiled to by each objective."""
    found = {}
    for objective in (Objective.BYTES, Objective.CYCLES):
        made = compile_network(
            network, table, target, Precision.INT8, QuantizationMode.PER_FILTER, objective=objective
        ).loadable
        decode(made, target)
        found[objective] = estimate(made, target, memory_of(target))
    return found


def line(name: str, target: Target, found: Mapping[Objective, Estimate]) -> str:
    """Return a line of the table."""
    before, after = found[Objective.BYTES], found[Objective.CYCLES]
    cells = (
        name,
        target.name,
        f"{before.cycles:,.0f}",
        f"{after.cycles:,.0f}",
        f"{100 * (1 - after.cycles / before.cycles):.2f} %",
        f"{before.traffic.bytes / 1e6:.2f}",
        f"{after.traffic.bytes / 1e6:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def main(arguments: list[str]) -> int:
    """Print the table; 1 where a network is slower by ``cycles``, else 0."""
    made = networks()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.objective")
    parser.add_argument("--networks", nargs="+", choices=list(made), default=list(made), metavar="NAME")
    parser.add_argument("--targets", nargs="+", choices=list(TARGETS), default=["nv_small", "nv_full"], metavar="NAME")
    options = parser.parse_args(arguments)
    print(f"| {' | '.join(HEAD)} |")
    print(f"| {' | '.join(['---'] * len(HEAD))} |")
    slower = False
    for name in options.networks:
        print(f"{name}: weights, table", file=sys.stderr, flush=True)
        network = prepare(made[name](), "fold")
        table = minmax_table(network, smooth_images(network.only_input.chw, 1), 1)
        for target in map(TARGETS.__getitem__, options.targets):
            if any(finding.severity == "error" for finding in check(network, target, Precision.INT8)):
                print(f"| {name} | {target.name} | refused |", flush=True)
                continue
            found = estimates(network, table, target)
            slower |= found[Objective.CYCLES].cycles > found[Objective.BYTES].cycles
            print(line(name, target, found), flush=True)
    return int(slower)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
