"""How close estimated cycles are to NVIDIA's RTL, beside NVIDIA's own formula and a formula of one line.

usage: python -m benchmarks.timing [GOLDEN_CYCLES] [--no-fit]

Operations: those of ``tests/data/cycles.json.xz``; with GOLDEN_CYCLES, the folder of the developers' measurements, also
the networks there. *spreadsheet* is nvdla/hw's ``perf`` (the more of MAC and DRAM cycles, channels and kernels rounded
up to what the MACs take; what is no convolution is free, and left out here), *line* the formula in docs/timing.md.
Then ResNet-20, the constants fitted to one half of the networks and tried on the other, both ways, and how long an
estimate of ResNet-50 takes.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from statistics import median

import numpy as np
from scipy.optimize import least_squares

from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.estimation.estimate import Estimate, estimate
from nvdla_quant.hardware.cbuf import ceil_div
from nvdla_quant.hardware.targets import TARGETS, Target
from nvdla_quant.hardware.timing import FITTED, Timing
from nvdla_quant.timing.cost import cost
from nvdla_quant.timing.memory import Memory, beat_bytes, memory_of
from nvdla_quant.timing.rates import queue, read_rate
from nvdla_quant.timing.records import Convolution, Operation, Planar, Point
from nvdla_quant.timing.sequence import sequencer, throughput
from tests.estimated import compiled, lenet, resnet20
from tests.measured_cycles import Setting, golden_settings, read_measurements
from tests.networks.residual import resnet50

Model = Callable[[Target, Memory, Operation], float | None]
PIXEL = {"nv_small": (11.4, 11.4), "nv_small_256": (9.0, 10.2), "nv_medium_512": (6.2, 6.2), "nv_large": (3.6, 3.6)}
"""Cycles of a pixel and group of kernels in the formula of one line: of features, of an image."""
RESNET20 = {"nv_small": 559_488, "nv_small_256": 241_206, "nv_medium_512": 125_563, "nv_large": 92_871}
"""Cycles of the network on the RTL at a latency of 40."""
SEEN = {"most_outstanding"}
HELD = {"normalisation_atoms", "register_write", "register_read", "interrupt", *SEEN}
"""Constants that the cross-validation leaves: a network's, and one that is not smooth."""
WORST = 5


def model(target: Target, memory: Memory, work: Operation) -> float:
    """Return what this package estimates."""
    return cost(target, memory, work).cycles


def spreadsheet(target: Target, memory: Memory, work: Operation) -> float | None:
    """Return NVIDIA's estimate of a convolution."""
    if not isinstance(work, Convolution):
        return None
    groups = ceil_div(work.kernels, target.kernels_per_group(work.element_bytes))
    moved = work.data_bytes + work.weight_bytes + work.behind.output_bytes
    return max(work.steps * work.rows * work.row * groups, moved / memory.read_bytes)


def line(target: Target, memory: Memory, work: Operation) -> float | None:
    """Return the estimate of one line for each unit."""
    beat, share, latency = beat_bytes(target), read_rate(target, memory), memory.read_latency
    match work:
        case Convolution():
            each = target.kernels_per_group(work.element_bytes)
            groups = ceil_div(work.kernels, each)
            last = work.kernels - (groups - 1) * each
            data, weights = work.data_bytes / beat, work.weight_bytes / beat
            pixels = work.rows * work.row
            stripes = work.rows * sum(
                count for _, count in sequencer(target, work.steps, work.element_bytes, work.image).stripes(work.row)
            )
            given = 2 * work.steps * stripes * ((groups - 1) * each // 2 + min(last, each // 2))
            bound = max(work.steps * pixels * groups, weights / share, pixels * groups * PIXEL[target.name][work.image])
            return 249 + last + 2 * latency + (data + min(data, weights)) / share + max(bound, given)
        case Point() | Planar():
            lrn = {8: 119, 16: 103, 32: 95}[target.feature_atom_bytes]
            if isinstance(work, Point):
                rate, more = throughput(target), 66
            else:
                rate = target.rates.pooling if work.pools else target.rates.normalisation
                more = 56 if work.pools else lrn
            atom = target.feature_atom_bytes
            read = work.traffic.read / max(1, work.source_bytes) / share
            each_atom = max(atom / rate, (latency + 15) / queue(target, rate), read)
            return work.values / atom * each_atom + 2 * latency + more
    return None


def errors_of(found: Model, setting: Setting, works: Mapping[str, Operation]) -> dict[str, float]:
    """Return the relative errors of a model, of the operations that it knows and that waited for no other."""
    estimates = {name: found(setting.target, setting.memory, works[name]) for name in setting.cycles}
    return {
        name: estimated / setting.cycles[name] - 1
        for name, estimated in estimates.items()
        if estimated is not None and name not in setting.late
    }


def spread(errors: Iterable[float]) -> str:
    """Return median and ninth decile of errors, in percent."""
    sizes = sorted(map(abs, errors))
    return f"{100 * median(sizes):8.3f} {100 * sizes[int(0.9 * len(sizes))]:7.2f}"


def print_operations() -> None:
    """Print the errors of three models, setting by setting, and the worst of this package's."""
    measurements = read_measurements()
    heads = "".join(f"   {name:>15}" for name in ("this model", "line", "spreadsheet"))
    print(f"{'operations: median and 90 % within, in %':42}{'':4}{heads}")
    worst: list[tuple[float, str, str]] = []
    for setting in measurements.settings:
        works = measurements.works[setting.target.name]
        ours = errors_of(model, setting, works)
        others = [spread(errors_of(other, setting, works).values()) for other in (line, spreadsheet)]
        print(f"{setting.name:42}{len(ours):4}   {spread(ours.values())}   {'   '.join(others)}")
        worst += [(error, name, setting.name) for name, error in ours.items()]
    print("\nthe worst of this model's")
    for error, name, where in sorted(worst, key=lambda one: -abs(one[0]))[:WORST]:
        print(f"{100 * error:+8.2f} %  {name} ({where})")


def total(found: Model, one: Estimate) -> float:
    """Return the sum of a model's estimates of a network's operations."""
    return sum(found(one.target, one.memory, work) or 0.0 for row in one.rows for work in row.works)


def print_networks() -> None:
    """Print what LeNet and ResNet-20 take."""
    print(f"\n{'networks':42} {'measured':>9} {'this model':>18} {'line':>18} {'spreadsheet':>18}")
    cases = [
        (f"LeNet, {setting.name}", setting.networks["lenet"], lenet(setting.target.name), setting.memory)
        for setting in read_measurements().settings
        if "lenet" in setting.networks
    ]
    cases += [
        (f"ResNet-20, {name}", cycles, resnet20(name), memory_of(TARGETS[name])) for name, cycles in RESNET20.items()
    ]
    for name, measured, loadable, memory in cases:
        target = TARGETS[name.split(", ")[1]]
        one = estimate(loadable, target, memory)
        found = [one.cycles, total(line, one), total(spreadsheet, one)]
        cells = " ".join(f"{cycles:9,.0f} {100 * (cycles / measured - 1):+6.2f} %" for cycles in found)
        print(f"{name:42} {measured:9,} {cells}")


def print_golden(folder: Path) -> None:
    """Print errors of all operations in their networks, those that wait for others too, and of the networks."""
    print(f"\n{'all in their networks, and networks':46}")
    for setting, estimates in golden_settings(folder):
        rows = {f"{name}/op{row.operation}": row.cycles for name, one in estimates.items() for row in one.rows}
        found = [rows[name] / cycles - 1 for name, cycles in setting.cycles.items()]
        networks = [estimates[name].cycles / cycles - 1 for name, cycles in setting.networks.items()]
        print(f"{setting.name:42}{len(found):4}   {spread(found)}{len(networks):5}   {spread(networks)}")


def fitted(settings: Iterable[Setting], works: Mapping[str, Mapping[str, Operation]], names: list[str]) -> Timing:
    """Return the constants that fit settings best, from half of each constant's value."""
    cases = [
        (setting, works[setting.target.name][name], cycles)
        for setting in settings
        for name, cycles in setting.cycles.items()
        if name not in setting.late
    ]
    scale = np.array([max(1.0, abs(getattr(FITTED, name))) for name in names])

    def timing(point: np.ndarray) -> Timing:
        return replace(FITTED, **dict(zip(names, (point * scale).tolist(), strict=True)))

    def errors(point: np.ndarray) -> np.ndarray:
        found = timing(point)
        targets = {name: replace(TARGETS[name], timing=found) for name in works}
        return np.array(
            [cost(targets[one.target.name], one.memory, work).cycles / took - 1 for one, work, took in cases]
        )

    start = np.array([getattr(FITTED, name) for name in names]) / scale / 2
    found = least_squares(errors, start, loss="soft_l1", f_scale=0.002, diff_step=0.02, max_nfev=25)
    return timing(found.x)


def print_cross_validation() -> None:
    """Print the errors of constants that were fitted to the other half of the networks."""
    measurements = read_measurements()
    names = [field.name for field in fields(Timing) if field.name not in HELD]
    count = len(fields(Timing)) - len(SEEN)
    print(f"\n{count} fitted constants, one value for all configurations; {len(names)} of them of operations:")
    loadables = sorted({name.split("/")[0] for setting in measurements.settings for name in setting.cycles})
    halves = [set(loadables[0::2]), set(loadables[1::2])]
    parts = [
        [
            replace(one, cycles={name: took for name, took in one.cycles.items() if name.split("/")[0] in half})
            for one in measurements.settings
        ]
        for half in halves
    ]
    found = [fitted(part, measurements.works, names) for part in parts]
    for name in names:
        values = "  ".join(f"{asdict(one)[name]:8.2f}" for one in found)
        print(f"{name:18} {asdict(FITTED)[name]:8.2f}  halves: {values}")
    for place, other in ((0, 1), (1, 0)):
        print(
            f"fitted to half {place + 1}, in %:",
            *(f"half {where + 1} {_tried(found[place], parts[where], measurements.works)}" for where in (place, other)),
        )


def _tried(timing: Timing, settings: Iterable[Setting], works: Mapping[str, Mapping[str, Operation]]) -> str:
    found: list[float] = []
    for setting in settings:
        changed = replace(setting, target=replace(setting.target, timing=timing))
        found += errors_of(model, changed, works[setting.target.name]).values()
    return spread(found)


def print_seconds() -> None:
    """Print how long an estimate of ResNet-50 takes."""
    network = resnet50()
    print("\nResNet-50 at 224 x 224: seconds of the processor, the best of three; cycles")
    for name in ("nv_small", "nv_large", "nv_full"):
        target, loadable = TARGETS[name], compiled(network, name)
        seconds: dict[str, list[float]] = {"decode": [], "estimate": []}
        for _ in range(3):
            begun = time.process_time()
            decode(loadable, target)
            seconds["decode"].append(time.process_time() - begun)
            begun = time.process_time()
            found = estimate(loadable, target, memory_of(target))
            seconds["estimate"].append(time.process_time() - begun)
        parts = ", ".join(f"{what} {min(times):.3f}" for what, times in seconds.items())
        print(f"{name:10} {parts}; {len(found.rows)} rows, {found.cycles:,.0f} cycles")


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description="How close estimated cycles are to NVIDIA's RTL.")
    parser.add_argument("golden", nargs="?", type=Path, help="folder of the developers' measurements")
    parser.add_argument("--no-fit", action="store_true", help="leave the cross-validation out, which takes minutes")
    given = parser.parse_args()
    print_operations()
    print_networks()
    if given.golden is not None:
        print_golden(given.golden)
    if not given.no_fit:
        print_cross_validation()
    print_seconds()


if __name__ == "__main__":
    main()
