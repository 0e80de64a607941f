"""Where hardware of nvdla/hw's branch master stops with clock gating on: a counter that loses releases of weights.

CDMA counts the entries of weights in the buffer, and takes no weights while the count is that of its banks or more. The
counter runs on a clock that stops once the operation has fetched all, so entries that are released later are never
taken off it (``vmod/nvdla/cdma/NV_NVDLA_CDMA_wt.v``, ``wt_wr_dmatx_cnt``). Either of NVDLA's pins that override clock
gating avoids it, and so does a build without it. nv_full (nvdlav1) has no such counter. docs/bare-metal.md.
"""

from dataclasses import dataclass

from nvdla_quant.emulator.decode.addresses import placed_tasks
from nvdla_quant.hardware.targets import NV_FULL, Target
from nvdla_quant.loadable.descriptors import DlaTask, read_task
from nvdla_quant.loadable.records import Loadable
from nvdla_quant.loadable.structs import Engine
from nvdla_quant.loadable.tasks import static_bytes


@dataclass(frozen=True)
class Stop:
    """The convolution at which hardware stops.

    Attributes
    ----------
    index : int
        Number of the operation in the loadable.
    counted : int
        Entries that the counter holds before it.
    own : int
        Entries of its own weights.
    room : int
        Entries of its banks of weights.
    """

    index: int
    counted: int
    own: int
    room: int

    def __str__(self) -> str:
        return (
            f"operation {self.index} (CONV): with NVIDIA's default clock gating hardware stops here: {self.counted} "
            f"entries of weights whose release is lost, and {self.own} of its own, in banks of {self.room}; set "
            "tmc2slcg_disable_clock_gating or global_clk_ovr_on, or build without clock gating"
        )


def lost_releases(loadable: Loadable, target: Target) -> Stop | None:
    """Return where hardware with clock gating stops, counted from its reset on; None where it does not.

    Parameters
    ----------
    loadable : Loadable
        That `nvdla_quant.emulator.decode.program.decode` takes for the target.
    target : Target
        The hardware.
    """
    if target.name == NV_FULL.name:
        return None
    counted = 0
    for task in placed_tasks(loadable, static_bytes(loadable)):
        if task.on_cpu:
            continue
        descriptors = read_task(task.space)
        for index in descriptors.chains.get(Engine.CONV, ()):
            own, room, data = _entries(descriptors, index, target)
            free = max(room - counted, 0)
            # Weights and data come in turn: data that are all there before the weights stop do not wait for them.
            if own > free and data > free:
                return Stop(task.base + index, counted, own, room)
            counted = min(counted + own, room) if own > room else counted + own
    return None


def _entries(task: DlaTask, index: int, target: Target) -> tuple[int, int, int]:
    """Return entries of a convolution's weights that are fetched, of its banks of weights, and of its data."""
    op, surface = task.operation(index), task.surface(index)
    entry = target.cbuf_entry_bytes
    weights = 0 if op["weight_reuse"] else -(-int(surface["weight_data"]["size"]) // entry)
    source = surface["src_data"]
    data = 0 if op["data_reuse"] else int(op["entry_per_slice"]) * int(source["height"])
    return weights, int(op["weight_bank"]) * target.cbuf_bank_entries, data
