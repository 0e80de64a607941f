"""The descriptors of a DLA task, read from the memory that the loadable fills.

Facts: nvdla/sw ``kmd/firmware/{engine,scheduler}.c``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import LoadableError
from nvdla_quant.loadable import structs
from nvdla_quant.loadable.structs import Engine
from nvdla_quant.loadable.tasks import TaskMemory


@dataclass(frozen=True, eq=False)
class DlaTask:
    """The descriptors of a DLA task, by index in the task.

    Attributes
    ----------
    common : NDArray[np.void]
        What the scheduler knows of each operation.
    engines : tuple[Engine, ...]
        Unit of each operation.
    chains : Mapping[Engine, tuple[int, ...]]
        Operations of each unit, in the order in which the firmware gives them to it.
    space : TaskMemory
        What their addresses mean.
    """

    common: NDArray[np.void]
    engines: tuple[Engine, ...]
    chains: Mapping[Engine, tuple[int, ...]]
    space: TaskMemory
    _operations: Mapping[Engine, NDArray[np.void]]
    _surfaces: Mapping[Engine, NDArray[np.void]]
    _luts: tuple[int, int]

    @property
    def count(self) -> int:
        """How many operations there are."""
        return len(self.engines)

    def operation(self, index: int) -> np.void:
        """Return what an operation does."""
        entry: np.void = self._operations[self.engines[index]][index]
        return entry

    def surface(self, index: int) -> np.void:
        """Return where an operation's data stand."""
        entry: np.void = self._surfaces[self.engines[index]][index]
        return entry

    def lut(self, index: int) -> np.void:
        """Return a look-up table."""
        address, count = self._luts
        if not 0 <= index < count:
            raise LoadableError(f"{self.space.where}: lut_index {index}, the task has {count} tables")
        entry: np.void = self.space.records(address, structs.LUT, count, "lut_data_index")[index]
        return entry

    def where(self, index: int) -> str:
        """Return what an operation is called in errors."""
        return f"{self.space.where} operation {index} ({self.engines[index].name})"


def read_task(space: TaskMemory) -> DlaTask:
    """Read the descriptors of a task.

    Raises
    ------
    LoadableError
        They leave what the loadable provides, or an operation is one that the firmware would never give to its unit.
    """
    network = space.records(0, structs.NETWORK, 1, "network descriptor")[0]
    count = int(network["num_operations"])
    if count == 0:
        raise LoadableError(f"{space.where}: network descriptor has no operations")

    def table(field: str, dtype: np.dtype[np.void], stride: int | None = None) -> NDArray[np.void]:
        return space.records(int(network[field]), dtype, count, field, stride)

    common = table("dependency_graph_index", structs.COMMON_OP)
    engines = tuple(_engine(space.where, index, int(entry["op_type"])) for index, entry in enumerate(common))
    operations = {
        engine: table("operation_desc_index", structs.OPERATIONS[engine], structs.OPERATION_BYTES)
        for engine in set(engines)
    }
    surfaces = {
        engine: table("surface_desc_index", structs.SURFACES[engine], structs.SURFACE_BYTES) for engine in set(engines)
    }
    chains = _chains(network, common, engines, space.where)
    luts = int(network["lut_data_index"]), int(network["num_luts"])
    return DlaTask(common, engines, chains, space, operations, surfaces, luts)


def _engine(where: str, index: int, value: int) -> Engine:
    try:
        return Engine(value)
    except ValueError:
        raise LoadableError(f"{where} operation {index}: op_type {value}, expected 0 to {max(Engine)}") from None


def _chains(
    network: np.void, common: NDArray[np.void], engines: Sequence[Engine], where: str
) -> dict[Engine, tuple[int, ...]]:
    """Return the operations of each unit in the order of the firmware: from ``op_head`` along the unit's consumers.

    Each operation names the next one of its unit among its consumers, and what is not reached so is never given to the
    unit (nvdla/sw ``kmd/firmware/scheduler.c``, ``dla_initiate_processors`` and ``dla_dequeue_operation``).
    """
    chains = {}
    for engine in Engine:
        chain: dict[int, None] = {}
        index = int(network["op_head"][engine])
        while index != -1:
            if not 0 <= index < len(engines) or engines[index] is not engine or index in chain:
                raise LoadableError(
                    f"{where}: the operations of {engine.name}, from op_head along its consumers, are "
                    f"{[*chain, index]}; expected each once, of that unit"
                )
            chain[index] = None
            index = int(common[index]["consumers"][engine]["index"])
        missing = [index for index, other in enumerate(engines) if other is engine and index not in chain]
        if missing:
            raise LoadableError(
                f"{where} operation {missing[0]} ({engine.name}): neither op_head nor a consumer of its unit names it; "
                "the firmware would never run it"
            )
        if chain:
            chains[engine] = tuple(chain)
    return chains
