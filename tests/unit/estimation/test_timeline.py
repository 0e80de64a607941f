"""When operations start and end: by hand, on a processor and hardware of round numbers."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from nvdla_quant.emulator.decode.addresses import AddressSpace
from nvdla_quant.errors import TraceError
from nvdla_quant.estimation.timeline import Run, _form, run_task
from nvdla_quant.hardware.targets import NV_FULL, NV_LARGE, TARGETS, Target
from nvdla_quant.hardware.timing import Timing
from nvdla_quant.loadable.descriptors import DlaTask, read_task
from nvdla_quant.loadable.layout import layouts_of
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.loadable.records import Interface, Loadable
from nvdla_quant.loadable.structs import DependencyEvent, Engine
from nvdla_quant.loadable.tasks import static_bytes, tasks_in_order
from nvdla_quant.registers.program.build import Writer
from nvdla_quant.registers.program.schedule import Enable, Program, Turns, Wait, schedule
from nvdla_quant.registers.program.steps import Put
from nvdla_quant.timing.memory import memory_of
from nvdla_quant.timing.records import Bound, Cost, Traffic
from tests.emulated import packed_cube
from tests.loadables import RESULT, SOURCE, Descriptor, cube_fields, loadable_of

ROUND = replace(NV_LARGE, timing=Timing(register_write=1.0, register_read=10.0, interrupt=5))
POOL = {"pool_mode": 1, "pool_height": 2, "pool_width": 2, "stride_y": 2, "stride_x": 2, "split_num": 1}


def tasks_of(loadable: Loadable) -> list[DlaTask]:
    static = static_bytes(loadable)
    layouts = layouts_of(loadable, static)
    return [
        read_task(AddressSpace(loadable, task, static, layouts))
        for task in tasks_in_order(loadable)
        if task.interface == Interface.DLA1
    ]


def pooled(*engines: Engine, waits: bool) -> DlaTask:
    """Operations of units, each behind the one before where it waits."""
    surface = cube_fields("src_data", packed_cube(SOURCE, (32, 4, 4), 32))
    surface |= cube_fields("dst_data", packed_cube(RESULT, (32, 2, 2), 32))
    of: Mapping[Engine, Mapping[str, object]] = {Engine.PDP: POOL, Engine.CDP: {"local_size": 5, "lut_index": 0}}
    descriptors = [
        Descriptor(
            engine,
            of[engine],
            surface,
            consumers=((place + 1, DependencyEvent.OP_COMPLETED),) if waits and place + 1 < len(engines) else (),
        )
        for place, engine in enumerate(engines)
    ]
    (task,) = tasks_of(loadable_of(descriptors, 512, 128, tables=[{}]))
    return task


def took(cycles: float) -> Cost:
    return Cost(cycles, Bound.DATA, {Bound.DATA: cycles}, Traffic(), (), cycles, cycles, cycles, cycles)


def run(task: DlaTask, cycles: float, host_gap: int = 0) -> tuple[list[Run], float]:
    return run_task(
        task, ROUND, memory_of(ROUND, host_gap=host_gap), Turns(), lambda units, indices, waits: took(cycles), 0.0
    )


def writes(task: DlaTask) -> list[int]:
    """Registers that each action of the firmware writes, in order; its waits left out."""
    writer = Writer(task, ROUND, 0)
    return [
        sum(isinstance(step, Put) for step in writer.steps(action))
        for action in schedule(task, Turns())
        if not isinstance(action, Wait)
    ]


@pytest.mark.parametrize("gap", [0, 7])
def test_two_operations_that_wait_for_each_other(gap: int) -> None:
    """The first is programmed (3 reads) and enabled; the second programmed while it runs, and enabled by its interrupt.

    The handler reads 4 registers and writes one, and only then does the firmware enable the second.
    """
    task = pooled(Engine.PDP, Engine.PDP, waits=True)
    program, enable, next_program, next_enable = writes(task)
    read, write = 10 + gap, 1 + gap
    enabled = 3 * read + (program + enable) * write
    assert enabled + 3 * read + next_program * write < enabled + 5000
    ended = enabled + 5000
    handled = ended + 5 + 4 * read + write
    again = handled + next_enable * write
    runs, end = run(task, 5000, gap)
    assert [(one.indices, one.start, one.end) for one in runs] == [((0,), enabled, ended), ((1,), again, again + 5000)]
    assert end == again + 5000 + 5 + 4 * read + write


def test_an_operation_that_waits_for_none_is_enabled_while_the_one_before_runs() -> None:
    task = pooled(Engine.PDP, Engine.PDP, waits=False)
    runs, _ = run(task, 5000)
    assert runs[1].start == runs[0].end


def test_units_run_beside_each_other() -> None:
    runs, end = run(pooled(Engine.PDP, Engine.CDP, waits=False), 5000)
    assert runs[1].start < runs[0].end
    assert end < 10_000


def test_a_slow_processor_handles_what_ended_meanwhile_at_once() -> None:
    """Both end while it still writes: one handling, in place of two."""
    task = pooled(Engine.PDP, Engine.CDP, waits=False)
    runs, end = run(task, 1.0)
    programmed = max(one.start for one in runs)
    assert end <= programmed + 4 * 10 + 1 + 5 + 1


def test_the_firmware_that_waits_for_ever_is_told() -> None:
    task = pooled(Engine.PDP, Engine.PDP, waits=True)
    task.common["dependency_count"][1] = 2
    with pytest.raises(TraceError):
        run(task, 10)


def target_of(folder: Path) -> Target:
    """Return the target that a folder of golden data is named for."""
    name = folder.name.replace("-", "_")
    return next(TARGETS[one] for one in sorted(TARGETS, key=len, reverse=True) if one in name)


def test_operations_of_one_form_take_as_many_registers(shared: Path) -> None:
    """In every golden loadable: the estimate counts the writes of one of each form."""
    golden = shared / "golden"
    files = [(path, path.parent) for path in (golden / "loadables").glob("*/*.nvdla")]
    files += [(path, path.parents[1]) for path in (golden / "cycles").glob("*/loadables/*.nvdla")]
    counted: dict[object, int] = {}
    for path, folder in files:
        target = target_of(folder)
        for task in tasks_of(read_loadable(path)):
            writer = Writer(task, target, 0)
            for action in schedule(task, Turns()):
                if isinstance(action, Program | Enable):
                    engine = task.engines[action.index]
                    form = target.name, type(action), engine, getattr(action, "reads", None)
                    count = sum(isinstance(step, Put) for step in writer.steps(action))
                    assert counted.setdefault((*form, *_form(task, action.index, engine)), count) == count, path
    assert len(counted) > 50


def test_copies_wait_for_no_registers_of_their_own() -> None:
    """BDMA's operations are launched without an enable."""
    from tests.unit_loadables import unit_loadables

    name = next(name for name in unit_loadables() if name.startswith("bdma"))
    (task,) = tasks_of(unit_loadables()[name])
    runs, end = run_task(task, NV_FULL, memory_of(NV_FULL), Turns(), lambda units, indices, waits: took(100), 0.0)
    assert [one.units for one in runs] == [(Engine.BDMA,)] * len(runs)
    assert end > 100
