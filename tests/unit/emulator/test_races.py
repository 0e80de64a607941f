"""Accesses that the dependency graph leaves unordered. Expected answers follow from the rules in `races`."""

from dataclasses import replace
from pathlib import Path

import pytest

from nvdla_quant.emulator.decode.program import decode
from nvdla_quant.emulator.decode.races import Link, describe_races
from nvdla_quant.emulator.operations import Cube, Operation, PdpOperation, handed_over
from nvdla_quant.hardware.targets import NV_FULL, Precision
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.loadable.structs import DependencyEvent, Engine, PoolMode
from tests.emulated import packed_cube
from tests.loadables import RESULT, SCRATCH, SOURCE, Descriptor, Fields, cube_fields, loadable_of
from tests.unit_loadables import copies, unit_loadables

COMPLETED, PROGRAMMED = DependencyEvent.OP_COMPLETED, DependencyEvent.OP_PROGRAMMED
ENABLED = DependencyEvent.OP_ENABLED


def cube(offset: int) -> Cube:
    """64 bytes of memory 1."""
    return Cube(1, offset, 8, 1, 8, 8, 1, 64, 64)


def pooling(index: int, source: int, destination: int) -> PdpOperation:
    places = cube(source), cube(destination)
    return PdpOperation(index, *places, PoolMode.MAX, (1, 1), (1, 1), 0, 0, (0,) * 7, Precision.INT8)


def races(
    places: list[tuple[int, int]],
    engines: list[Engine],
    links: list[Link],
    chains: dict[Engine, list[int]] | None = None,
) -> list[tuple[int, int]]:
    """Pairs of operations that race, each reading at the first place of its pair and writing at the second.

    What is read at -1 is handed over by the operation before. Units are given their operations in list order, unless
    `chains` says otherwise.
    """
    operations: dict[int, Operation] = {index: pooling(index, *pair) for index, pair in enumerate(places)}
    for index, (source, _) in enumerate(places):
        if source == -1:
            given = handed_over(index - 1, (8, 1, 8), 8, 1)
            operations[index] = replace(pooling(index, *places[index]), source=given)
            operations[index - 1] = replace(pooling(index - 1, *places[index - 1]), destination=given)
    if chains is None:
        chains = {unit: [index for index, engine in enumerate(engines) if engine is unit] for unit in set(engines)}
    found = []
    for sentence in describe_races(operations, chains, links, base=0):
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


def test_reads_do_not_wait_for_an_operation_that_reads_nothing() -> None:
    """Pooling 2 takes what SDP operation 1 hands over, so the read engine has no turn for it and goes on with 3.

    Both it and the SDP operation wait for 0, whose result 3 reads; but 3 waits only until pooling 2 is programmed.
    """
    engines = [Engine.CDP, Engine.SDP, Engine.PDP, Engine.PDP]
    links = [(0, 1, COMPLETED), (0, 2, COMPLETED), (1, 2, PROGRAMMED), (2, 1, ENABLED), (2, 3, PROGRAMMED)]
    flying = [(0, 64), (128, 192), (-1, 256), (64, 320)]
    assert races(flying, engines, links) == [(0, 3)]
    assert races(flying, engines, [*links[:4], (2, 3, COMPLETED)]) == []
    # A pooling that reads memory itself has its turn first.
    assert races([(0, 64), (128, 192), (192, 256), (64, 320)], engines, [*links[:4], (1, 2, COMPLETED), links[4]]) == []


def test_units_go_along_their_chains() -> None:
    """The third on the way, not in the list, is programmed once the first is complete."""
    places = [(0, 64), (64, 128), (256, 320)]
    assert races(places, [Engine.PDP] * 3, [], {Engine.PDP: [0, 2, 1]}) == []
    assert races(places, [Engine.PDP] * 3, [], {Engine.PDP: [0, 1, 2]}) == [(0, 1)]


def copied(first: tuple[int, int], second: tuple[int, int], event: DependencyEvent) -> list[str]:
    """Races of a copy and a pooling, each from the first to the second address, linked by `event`."""
    names = ("source_address", "destination_address")
    copy: Fields = dict(zip(names, first, strict=True)) | {
        "line_size": 32, "line_repeat": 1, "source_line": 32, "destination_line": 32, "surface_repeat": 1,
        "source_surface": 32, "destination_surface": 32,
    }  # fmt: skip
    cubes = (packed_cube(memory, (32, 1, 1), 32) for memory in second)
    surface = cube_fields("src_data", next(cubes)) | cube_fields("dst_data", next(cubes))
    descriptors = [
        Descriptor(Engine.BDMA, {}, copies(copy), consumers=((1, event),)),
        Descriptor(Engine.PDP, {"pool_mode": PoolMode.MAX, "stride_x": 1, "stride_y": 1, "split_num": 1}, surface),
    ]
    loadable = loadable_of(descriptors, 32, 32, scratch=32)
    return [text for text in decode(loadable, NV_FULL).warnings if text.startswith("race")]


def test_copies_race_like_all_others() -> None:
    through = (SOURCE, SCRATCH), (SCRATCH, RESULT)
    assert copied(*through, COMPLETED) == []
    (race,) = copied(*through, PROGRAMMED)
    assert "operation 1 (PDP) reads" in race
    assert "operation 0 (BDMA) writes" in race
    assert copied((SOURCE, SCRATCH), (SOURCE, RESULT), PROGRAMMED) == []


def test_very_many_copies_are_not_compared() -> None:
    """120 operations of 20 copies write 2400 cubes; the warning says that nobody looked."""
    copy: Fields = {
        "source_address": SOURCE, "destination_address": RESULT, "line_size": 32, "line_repeat": 1, "source_line": 32,
        "destination_line": 32, "surface_repeat": 1, "source_surface": 32, "destination_surface": 32,
    }  # fmt: skip
    loadable = loadable_of([Descriptor(Engine.BDMA, {}, copies(*[copy] * 20))] * 120, 32, 32)
    (warning,) = decode(loadable, NV_FULL).warnings
    assert "not looked for: the task reads and writes 2400 cubes, more than 2048" in warning


def test_what_is_handed_over_races_with_nothing() -> None:
    """SDP and pooling run at once, and neither touches what the other has in memory."""
    loadable = unit_loadables()["pdp-fly"]
    assert decode(loadable, NV_FULL).warnings == ()


def test_the_one_race_of_the_golden_loadables(shared: Path) -> None:
    """NVIDIA's compiler left one: the C-model fetches the operand of v_elt_prod's product before it is written."""
    found = {}
    for folder in sorted((shared / "golden" / "loadables").iterdir()):
        warnings = decode(read_loadable(folder / "loadable.nvdla")).warnings
        if sentences := [warning for warning in warnings if warning.startswith("race")]:
            found[folder.name] = sentences
    assert list(found) == ["v-elt-prod-nv-full-fp16"]
    (sentence,) = found["v-elt-prod-nv-full-fp16"]
    assert "operation 5 (SDP) reads" in sentence
    assert "which operation 3 (SDP) writes" in sentence


def test_results_come_after_those_of_a_chain_that_waits() -> None:
    """CDP 0 reads where PDP 3 writes; PDP 2 takes what SDP 1 hands over, and 3 has no turn before 2 begins."""
    places = [(0, 128), (256, 0), (-1, 384), (512, 0)]
    engines = [Engine.CDP, Engine.SDP, Engine.PDP, Engine.PDP]
    assert races(places, engines, [(0, 1, COMPLETED)]) == []
    assert races(places, engines, []) == [(0, 3)]
