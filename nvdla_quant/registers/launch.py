"""Which units an operation needs, and what it is.

An operation runs once all that take part in it are enabled, each in the group whose turn it is: a producer without its
consumer waits for ever, and the other way round.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from nvdla_quant.emulator.decode.buffer import surplus_weights
from nvdla_quant.emulator.operations import ConvOperation, Cube, Operation, cubes_kept, cubes_written
from nvdla_quant.emulator.reuse import Predecessor
from nvdla_quant.errors import TraceError
from nvdla_quant.hardware.targets import Target
from nvdla_quant.registers.decode.conv import decode_convolution
from nvdla_quant.registers.decode.moves import decode_layout
from nvdla_quant.registers.decode.planar import decode_normalisation, decode_pooling, pools_memory
from nvdla_quant.registers.decode.sdp import decode_point, feeds_pooling, is_flying, reads_memory, reads_nothing
from nvdla_quant.registers.units import Unit

CONVOLUTION = ("CDMA", "CSC", "CMAC_A", "CMAC_B", "CACC")
POOLING, NORMALISATION, LAYOUT = ("PDP", "PDP_RDMA"), ("CDP", "CDP_RDMA"), ("RBK",)


@dataclass(frozen=True)
class Ending:
    """What ends next: units that are done with their groups, and the interrupt that tells so."""

    units: tuple[str, ...]
    source: str
    group: int


@dataclass(frozen=True)
class Launch:
    """An operation that can run.

    Attributes
    ----------
    units : tuple[str, ...]
        All that take part.
    decode : callable
        Returns the emulator's operations; called with a name for errors.
    endings : tuple[Ending, ...]
        What ends with it, in this order.
    """

    units: tuple[str, ...]
    decode: Callable[[str], list[Operation]]
    endings: tuple[Ending, ...]


def needs_of_point(units: Mapping[str, Unit]) -> tuple[str, ...]:
    """Return the units that an SDP operation needs, as SDP's registers have it."""
    return (
        "SDP",
        *CONVOLUTION * is_flying(units),
        *("SDP_RDMA",) * reads_memory(units),
        *("PDP",) * feeds_pooling(units),
    )


def _needs(units: Mapping[str, Unit], enabled: set[str]) -> tuple[str, ...]:
    """Return what has to be enabled with what is `enabled`."""
    needed: list[str] = []
    if enabled & {*CONVOLUTION, "SDP", "SDP_RDMA"}:
        needed += ["SDP", *(CONVOLUTION if enabled & {*CONVOLUTION} else ())]
        needed += needs_of_point(units) if "SDP" in enabled else ()
    if enabled & {*POOLING}:
        needed += POOLING if "PDP" not in enabled or pools_memory(units) else ("PDP", "SDP")
    if enabled & {*NORMALISATION}:
        needed += NORMALISATION
    return tuple(dict.fromkeys(needed))


def stuck(units: Mapping[str, Unit]) -> tuple[int, str] | None:
    """Return the line that enables what can never run, and why; None where nothing is enabled."""
    enabled = {name for name, unit in units.items() if any(unit.enabled)}
    if not enabled:
        return None
    last = max((units[name] for name in enabled), key=lambda unit: max(unit.lines))
    line = max(last.lines)
    for name in sorted(enabled):
        if not units[name].is_ready:
            turn = units[name].consumer
            return max(units[name].lines), (
                f"{name}.D_OP_ENABLE: group {1 - turn} is enabled, and it is group {turn}'s turn; it would hang"
            )
    missing = [name for name in _needs(units, enabled) if name not in enabled]
    names = ", ".join(sorted(enabled))
    if missing:
        return line, f"{last.name}.D_OP_ENABLE: {names} enabled without {', '.join(missing)}; it would hang"
    return line, (
        f"{last.name}.D_OP_ENABLE: {names} enabled, and their registers do not make them work together; it would hang"
    )


class Launcher:
    """Finds operations that can run, and keeps what one leaves for the next.

    Parameters
    ----------
    units : Mapping[str, Unit]
        The target's units.
    target : Target
        The hardware.
    """

    def __init__(self, units: Mapping[str, Unit], target: Target) -> None:
        self.warnings: list[str] = []
        self.index = 0
        self._units = units
        self._target = target
        self._before: Predecessor | None = None
        self._written: list[Cube] = []

    def done(self, operations: list[Operation]) -> None:
        """Take note of operations that have run."""
        self._written += [cube for operation in operations for cube in cubes_written(operation)]
        self.index = operations[-1].index + 1

    def next(self) -> Launch | None:
        """Return an operation for which all is enabled; None where there is none."""
        if self._ready("SDP") and self._ready(*needs_of_point(self._units)):
            return self._point()
        if self._ready(*POOLING) and pools_memory(self._units):
            return Launch(POOLING, self._decode_pooling, (self._ending(POOLING, "PDP"),))
        if self._ready(*NORMALISATION):
            return Launch(NORMALISATION, self._decode_normalisation, (self._ending(NORMALISATION, "CDP"),))
        if "RBK" in self._units and self._ready("RBK"):
            return Launch(LAYOUT, self._decode_layout, (self._ending(LAYOUT, "RUBIK"),))
        return None

    def _ready(self, *names: str) -> bool:
        return all(self._units[name].is_ready for name in names)

    def _ending(self, units: tuple[str, ...], source: str) -> Ending:
        return Ending(units, source, self._units[units[0]].consumer)

    def _point(self) -> Launch:
        endings: list[Ending] = []
        if is_flying(self._units):
            group = self._units["CDMA"].consumer
            # Which of CDMA's two comes first depends on memory; NVIDIA's traces for nv_full have the data first.
            endings += [Ending((), "CDMA_DAT", group), Ending(("CDMA",), "CDMA_WT", group)]
            endings.append(self._ending(("CACC", "CSC", "CMAC_A", "CMAC_B"), "CACC"))
        # Where SDP_RDMA is enabled with nothing to read, it is done at once. Else it waits for the operation that needs
        # it: the firmware enables the next one's, too, before this one is done.
        fetches = self._ready("SDP_RDMA") and (reads_memory(self._units) or reads_nothing(self._units))
        endings.append(self._ending(("SDP", *("SDP_RDMA",) * fetches), "SDP"))
        if feeds_pooling(self._units):
            endings.append(self._ending(("PDP",), "PDP"))
        return Launch(needs_of_point(self._units), self._decode_point, tuple(endings))

    def _decode_point(self, where: str) -> list[Operation]:
        pooled = feeds_pooling(self._units)
        if pooled and pools_memory(self._units):
            raise TraceError(
                f"{where}: PDP.D_OPERATION_MODE_CFG takes the source from memory, SDP.D_FEATURE_MODE_CFG hands its "
                "result to PDP; expected both alike, or it would hang"
            )
        index, fed = self.index, None
        if is_flying(self._units):
            self._check_weights_follow(where)
            before = decode_convolution(self._units, self._target, index, self._before, self.warnings, where)
            fed, index = before.operation, index + 1
            self._check_kept(fed, where)
            self._before = before
        point = decode_point(self._units, self._target, index, fed, self.warnings, where)
        if not pooled:
            return [point]
        return [point, decode_pooling(self._units, self._target, index + 1, point, where)]

    def _check_weights_follow(self, where: str) -> None:
        """Refuse a convolution behind one that fetches more weights than it takes, as NVIDIA's traces of one do.

        What is left over stands before this one's weights in the buffer: docs/hardware/buffer.md, seen on RTL.
        """
        if self._before is None:
            return
        surplus = surplus_weights(self._before.surface, self._before.operation, self._target)
        if surplus:
            raise TraceError(
                f"{where}: the convolution before fetches {surplus} bytes of weights more than its kernels take, so "
                "hardware would take these for this one's; expected D_WEIGHT_BYTES in whole entries of the buffer, "
                f"which have {self._target.cbuf_entry_bytes} bytes"
            )

    def _check_kept(self, convolution: ConvOperation, where: str) -> None:
        """Refuse a convolution that takes from the buffer what has changed in memory since, where it is read again."""
        kept = cubes_kept(convolution)
        if any(cube.overlaps(other) for cube in self._written for other in kept):
            raise TraceError(f"{where}: reuses data or weights that were written over since, expected them unchanged")
        if not kept:
            self._written = []

    def _decode_pooling(self, where: str) -> list[Operation]:
        return [decode_pooling(self._units, self._target, self.index, None, where)]

    def _decode_normalisation(self, where: str) -> list[Operation]:
        return [decode_normalisation(self._units, self._target, self.index, where)]

    def _decode_layout(self, where: str) -> list[Operation]:
        return [decode_layout(self._units, self._target, self.index, where)]
