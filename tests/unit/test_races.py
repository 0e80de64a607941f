"""Accesses that the dependency graph leaves unordered. Expected answers follow from the rules in `races`."""

from pathlib import Path

import pytest

from nvdla_quant.emulator.operations import Cube, Operation, PdpOperation
from nvdla_quant.emulator.program import decode
from nvdla_quant.emulator.races import Link, describe_races
from nvdla_quant.errors import EmulationError
from nvdla_quant.hardware import Precision
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.loadable.structs import DependencyEvent, Engine, PoolMode

COMPLETED, PROGRAMMED = DependencyEvent.OP_COMPLETED, DependencyEvent.OP_PROGRAMMED


def cube(offset: int) -> Cube:
    """64 bytes of memory 1."""
    return Cube(1, offset, 8, 1, 8, 8, 1, 64, 64)


def pooling(index: int, source: int, destination: int) -> PdpOperation:
    places = cube(source), cube(destination)
    return PdpOperation(index, *places, PoolMode.MAX, (1, 1), (1, 1), 0, 0, (0,) * 7, Precision.INT8)


def races(places: list[tuple[int, int]], engines: list[Engine], links: list[Link]) -> list[tuple[int, int]]:
    """Pairs of operations that race, each reading at the first place of its pair and writing at the second."""
    operations: dict[int, Operation] = {index: pooling(index, *pair) for index, pair in enumerate(places)}
    found = []
    for sentence in describe_races(operations, engines, links, base=0):
        words = sentence.replace("which operation", "operation").split("operation ")
        second, first = (int(word.split()[0]) for word in words[1:3])
        found.append((first, second))
    return found


TWO_UNITS = [Engine.PDP, Engine.CDP]


@pytest.mark.parametrize(
    ("links", "expected"),
    [([(0, 1, COMPLETED)], []), ([(0, 1, PROGRAMMED)], [(0, 1)]), ([], [(0, 1)])],
)
def test_a_reader_must_wait_until_the_writer_is_complete(links: list[Link], expected: list[tuple[int, int]]) -> None:
    assert races([(0, 64), (64, 128)], TWO_UNITS, links) == expected


def test_disjoint_cubes_need_no_order() -> None:
    assert races([(0, 64), (128, 192)], TWO_UNITS, []) == []


def test_a_writer_must_wait_for_readers_and_writers_of_other_units() -> None:
    assert races([(0, 64), (128, 0)], TWO_UNITS, []) == [(0, 1)]
    assert races([(0, 64), (128, 64)], TWO_UNITS, []) == [(0, 1)]


def test_a_unit_writes_in_order_but_reads_ahead() -> None:
    same = [Engine.PDP, Engine.PDP]
    assert races([(0, 64), (128, 64)], same, [(0, 1, PROGRAMMED)]) == []
    assert races([(0, 64), (64, 128)], same, [(0, 1, PROGRAMMED)]) == [(0, 1)]


def test_two_sets_of_registers_order_every_other_operation() -> None:
    """The third of a unit is programmed once the first is complete."""
    assert races([(0, 64), (256, 320), (64, 128)], [Engine.PDP] * 3, []) == []


def test_order_passes_through_others() -> None:
    engines = [Engine.PDP, Engine.CDP, Engine.RUBIK]
    links = [(0, 1, COMPLETED), (1, 2, COMPLETED)]
    assert races([(0, 64), (256, 320), (64, 128)], engines, links) == []
    assert races([(0, 64), (256, 320), (64, 128)], engines, [(0, 1, PROGRAMMED), (1, 2, COMPLETED)]) == [(0, 2)]


def test_a_unit_starts_in_order() -> None:
    """The second reader of another unit starts after the first, which has waited."""
    engines = [Engine.PDP, Engine.CDP, Engine.CDP]
    links = [(0, 1, COMPLETED), (1, 2, PROGRAMMED)]
    assert races([(0, 64), (64, 128), (64, 192)], engines, links) == []
    assert races([(0, 64), (256, 320), (64, 192)], engines, [(0, 1, PROGRAMMED), (1, 2, PROGRAMMED)]) == [(0, 2)]


def test_the_one_race_of_the_golden_loadables(shared: Path) -> None:
    """NVIDIA's compiler left one: the C-model fetches the operand of v_elt_prod's product before it is written."""
    found = {}
    refused = []
    for folder in sorted((shared / "golden" / "loadables").iterdir()):
        try:
            warnings = decode(read_loadable(folder / "loadable.nvdla")).warnings
        except EmulationError:
            refused.append(folder.name)
            continue
        if sentences := [warning for warning in warnings if warning.startswith("race")]:
            found[folder.name] = sentences
    assert refused == []
    assert list(found) == ["v-elt-prod-nv-full-fp16"]
    (sentence,) = found["v-elt-prod-nv-full-fp16"]
    assert "operation 5 (SDP) reads" in sentence
    assert "which operation 3 (SDP) writes" in sentence
