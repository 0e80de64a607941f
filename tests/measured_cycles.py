"""Cycles that NVIDIA's RTL took for operations, beside what the operations do: numbers alone, no loadables.

``tests/data/cycles.json.xz`` is made from the developers' golden data, which a user's clone has not:

    python -m tests.measured_cycles ../shared/golden/cycles tests/data/cycles.json.xz
"""

import json
import lzma
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from nvdla_quant.estimation.estimate import Estimate, estimate
from nvdla_quant.hardware.targets import TARGETS, Target
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.timing.memory import Memory
from nvdla_quant.timing.records import Convolution, Operation, Planar, Point

FILE = Path(__file__).parent / "data" / "cycles.json.xz"
NAMES = ("nv_small", "nv_small_256", "nv_medium_512", "nv_large")
KINDS = {kind.__name__: kind for kind in (Convolution, Point, Planar)}


@dataclass(frozen=True)
class Setting:
    """What was measured on a target with a memory: cycles of operations, and of networks, by name.

    `late` has the operations that were enabled while the one before ran on their unit.
    """

    target: Target
    memory: Memory
    cycles: Mapping[str, int]
    networks: Mapping[str, int]
    late: frozenset[str]

    @property
    def name(self) -> str:
        """Target and memory in words."""
        memory, width = self.memory, self.target.memory.bits // 8
        parts = [f"{self.target.name}, latency {memory.read_latency}"]
        if memory.read_bytes < width:
            parts.append(f"{memory.read_bytes:g} of {width} bytes")
        if memory.shared:
            parts.append("shared")
        if memory.outstanding:
            parts.append(f"{memory.outstanding} reads")
        if memory.host_gap:
            parts.append(f"host {memory.host_gap}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Measurements:
    """All settings, and what the operations do, by target and name."""

    settings: tuple[Setting, ...]
    works: Mapping[str, Mapping[str, Operation]]


def read_measurements(path: Path = FILE) -> Measurements:
    """Read the committed file."""
    content = json.loads(lzma.decompress(path.read_bytes()))
    works = {name: {key: _work(one) for key, one in found.items()} for name, found in content["operations"].items()}
    settings = tuple(
        Setting(
            TARGETS[one["target"]],
            Memory(**one["memory"]),
            one["cycles"],
            one["networks"],
            frozenset(one.get("late", ())),
        )
        for one in content["settings"]
    )
    return Measurements(settings, works)


def _work(content: Mapping[str, Any]) -> Operation:
    kind = KINDS[content["kind"]]
    given = {key: value for key, value in content.items() if key != "kind"}
    if kind is Convolution:
        given |= {"behind": _work({"kind": "Point", **given["behind"]}), "banks": tuple(given.get("banks", (1, 1)))}
    return kind(**given)


def golden_settings(folder: Path) -> Iterator[tuple[Setting, Mapping[str, Estimate]]]:
    """Yield what the golden data has, each with estimates of the loadables that are there."""
    for name in NAMES:
        target, loadables = TARGETS[name], folder / name / "loadables"
        records = json.loads((folder / name / "cycles.json").read_text())["records"]
        by_memory: dict[Memory, list[dict[str, Any]]] = {}
        for record in records:
            if (loadables / f"{record['loadable']}.nvdla").exists():
                by_memory.setdefault(_memory(record["setting"]), []).append(record)
        for memory, found in by_memory.items():
            names = dict.fromkeys(record["loadable"] for record in found)
            estimates = {one: estimate(read_loadable(loadables / f"{one}.nvdla"), target, memory) for one in names}
            cycles = {one["name"]: one["cycles"] for one in found if one["unit"] != "network"}
            networks = {one["loadable"]: one["cycles"] for one in found if one["unit"] == "network"}
            late = frozenset(one["name"] for one in found if one.get("overlapped_with_previous"))
            yield Setting(target, memory, cycles, networks, late), estimates


def _memory(setting: Mapping[str, Any]) -> Memory:
    return Memory(
        setting["read_latency_cycles"],
        setting["write_response_latency_cycles"],
        setting["read_bytes_per_cycle"],
        setting["write_bytes_per_cycle"],
        setting["read_and_write_share_bandwidth"],
        setting["most_outstanding_reads"],
        host_gap=setting["host_gap_cycles"],
    )


def _plain(work: Operation) -> dict[str, Any]:
    """Return an operation as plain values, without those that every operation has anyway."""
    found: dict[str, Any] = {"kind": type(work).__name__}
    for field in fields(work):
        value = getattr(work, field.name)
        if value != field.default:
            found[field.name] = asdict(value) if isinstance(value, Point) else value
    return found


def main() -> None:
    """Write the file; operations that were enabled while another ran, and LeNet, say what a network takes."""
    folder, path = map(Path, sys.argv[1:])
    works: dict[str, dict[str, Any]] = {name: {} for name in NAMES}
    settings = []
    for setting, estimates in golden_settings(folder):
        for loadable, found in estimates.items():
            for row in found.rows:
                if len(row.works) == 1 and f"{loadable}/op{row.operation}" in setting.cycles:
                    works[setting.target.name].setdefault(f"{loadable}/op{row.operation}", _plain(row.works[0]))
        memory = {key: value for key, value in asdict(setting.memory).items() if key != "clock"}
        networks = {name: cycles for name, cycles in setting.networks.items() if name == "lenet"}
        settings.append(
            {
                "target": setting.target.name,
                "memory": memory,
                "networks": networks,
                "late": sorted(setting.late),
                "cycles": setting.cycles,
            }
        )
    about = "Cycles of operations on NVIDIA's RTL (nvdla/hw 1a65f1f, Verilator); tests/measured_cycles.py reads them."
    content = {"about": about, "operations": works, "settings": settings}
    lines = json.dumps(content, separators=(",", ":")).replace('},"', '},\n"').replace(',{"target"', ',\n{"target"')
    path.write_bytes(lzma.compress(f"{lines}\n".encode(), preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    main()
