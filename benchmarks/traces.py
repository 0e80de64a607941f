"""Replay NVIDIA's trace tests, or any traces, and print what became of each.

usage: python -m benchmarks.traces FOLDER [--configtarget T] [--differences]

FOLDER holds traces in any depth: nvdla/hw's ``verif/tests/trace_tests`` (branch master, a folder a configuration) or
``verif/traces/traceplayer`` (branch nvdlav1, for nv_full). The configuration is the name of a folder above the trace; a
``.txn`` is for nv_full; --configtarget says it for traces that stand elsewhere. None of NVIDIA's files is part of this
project: ``git clone https://github.com/nvdla/hw``.

A line for each trace, then one for each configuration: checks, how many of them are equal, and the exception, where
there is one: a file that is not there, a unit that the configuration has not, or an error. The exit status is 1 where a
check differs, or where there is an error of another kind.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nvdla_quant.errors import MissingDataError, MissingUnitError, NvdlaQuantError
from nvdla_quant.hardware.targets import NV_FULL, TARGETS, Target
from nvdla_quant.registers.map import register_map
from nvdla_quant.registers.replay import replay
from nvdla_quant.registers.traces.files import read_trace, traces_in

EQUAL, DIFFERS, NO_DATA, NO_UNIT, ERROR = "equal", "differs", "no data", "no unit", "error"


@dataclass(frozen=True)
class Row:
    """What became of a trace."""

    target: str
    name: str
    kind: str
    checks: int
    equal: int
    exception: str


def target_of(path: Path, named: str | None) -> Target | None:
    """Return the target of a trace; None where nothing says it."""
    if named is not None:
        return TARGETS[named]
    above = next((part for part in reversed(path.parts[:-1]) if part in TARGETS), None)
    if above is not None:
        return TARGETS[above]
    return NV_FULL if path.suffix == ".txn" else None


def row_of(path: Path, target: Target | None) -> Row:
    """Replay a trace."""
    name = path.parent.name if path.stem == "input" else path.stem
    if target is None:
        return Row("?", name, ERROR, 0, 0, "no folder above it is called as a configuration: give --configtarget")
    try:
        result = replay(read_trace(path, register_map(target)), target)
    except NvdlaQuantError as error:
        kinds = {MissingDataError: NO_DATA, MissingUnitError: NO_UNIT}
        return Row(target.name, name, kinds.get(type(error), ERROR), 0, 0, str(error).removeprefix(f"{path}:"))
    equal = sum(check.holds for check in result.checks)
    kind = EQUAL if result.holds else DIFFERS
    different = next((f"line {c.line}: {c.place}: {c.found}" for c in result.checks if not c.holds), "")
    return Row(target.name, name, kind, len(result.checks), equal, different)


def rows(folder: Path, named: str | None) -> Iterator[Row]:
    """Yield a row for each trace below a folder."""
    for path in traces_in(folder):
        yield row_of(path, target_of(path, named))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Replay the traces of a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--configtarget", choices=list(TARGETS))
    parser.add_argument("--differences", action="store_true", help="print no line for traces whose checks are equal")
    options = parser.parse_args()
    start = time.perf_counter()
    counts: dict[str, Counter[str]] = {}
    for row in rows(options.folder, options.configtarget):
        counts.setdefault(row.target, Counter())[row.kind] += 1
        counts[row.target]["checks"] += row.checks
        counts[row.target]["checks equal"] += row.equal
        if row.kind != EQUAL or not options.differences:
            print(f"{row.target:20} {row.name:45} {row.equal:4} of {row.checks:4}  {row.kind:8} {row.exception}")
    kinds = (EQUAL, DIFFERS, NO_DATA, NO_UNIT, ERROR)
    print(f"\n{'':20} {'traces':>7} " + " ".join(f"{kind:>8}" for kind in kinds) + "   checks equal")
    for name, count in counts.items():
        traces = sum(count[kind] for kind in kinds)
        each = " ".join(f"{count[kind]:8}" for kind in kinds)
        print(f"{name:20} {traces:7} {each}   {count['checks equal']} of {count['checks']}")
    print(f"{time.perf_counter() - start:.1f} s")
    return int(any(count[DIFFERS] or count[ERROR] for count in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
