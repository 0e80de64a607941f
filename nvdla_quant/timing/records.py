"""Operations as their cost sees them, and what they cost."""

from dataclasses import dataclass
from enum import StrEnum


class Bound(StrEnum):
    """What most of an operation's cycles are spent on."""

    MACS = "MACs"
    WEIGHTS = "weights"
    DATA = "data"
    OUTPUT = "output"
    LATENCY = "latency"


@dataclass(frozen=True)
class Traffic:
    """Bytes by client of the memory.

    Attributes
    ----------
    data, weights, operands : int
        Read.
    output : int
        Written.
    """

    data: int = 0
    weights: int = 0
    operands: int = 0
    output: int = 0

    @property
    def read(self) -> int:
        """Bytes read."""
        return self.data + self.weights + self.operands

    @property
    def bytes(self) -> int:
        """Bytes read and written."""
        return self.read + self.output

    def __add__(self, other: "Traffic") -> "Traffic":
        """Return both together."""
        return Traffic(
            self.data + other.data,
            self.weights + other.weights,
            self.operands + other.operands,
            self.output + other.output,
        )


@dataclass(frozen=True)
class Point:
    """An operation of the SDP.

    Attributes
    ----------
    values : int
        Of its output, in whole atoms.
    element_bytes : int
        Of an element of the wider of source and destination.
    source_bytes : int
        Read as main input; 0 where a convolution hands over.
    operand_bytes : int
        Read beside it.
    output_bytes : int
        Written; 0 where the PDP takes the results.
    uses_y : bool
        Whether its Y unit works.
    """

    values: int
    element_bytes: int
    source_bytes: int
    operand_bytes: int
    output_bytes: int
    uses_y: bool = False

    @property
    def traffic(self) -> Traffic:
        """What it reads and writes."""
        return Traffic(data=self.source_bytes, operands=self.operand_bytes, output=self.output_bytes)


@dataclass(frozen=True)
class Convolution:
    """A convolution and the SDP that takes its results.

    Attributes
    ----------
    lines, width, atoms : int
        Of the input that is loaded: lines, pixels in each, and atoms of channels (1 for an image).
    data_bytes : int
        Loaded; 0 where they stand in the buffer.
    weight_bytes : int
        Loaded, of all kernels; 0 where they stand in the buffer.
    early_bytes : int
        Of the weights, those that load while the convolution before still runs.
    banks : tuple[int, int]
        Banks of the buffer for data, and for weights.
    room_bytes : int
        Room for weights in the buffer.
    keeps_weights : bool
        Whether its weights stay there.
    kernels, kernel_bytes : int
        Kernels, and bytes of each.
    steps : int
        Steps of the MAC array for a pixel and a group of kernels.
    rows, row : int
        The output as the sequencer goes over it: features are one row of all pixels.
    image : bool
        Whether the input is an image.
    element_bytes : int
        1 or 2.
    behind : Point
        What the SDP does.
    unmeasured : tuple[str, ...]
        What it has that none of the measured ones had.
    """

    lines: int
    width: int
    atoms: int
    data_bytes: int
    weight_bytes: int
    room_bytes: int
    kernels: int
    kernel_bytes: int
    steps: int
    rows: int
    row: int
    image: bool
    element_bytes: int
    behind: Point
    banks: tuple[int, int] = (1, 1)
    early_bytes: int = 0
    keeps_weights: bool = False
    unmeasured: tuple[str, ...] = ()

    @property
    def traffic(self) -> Traffic:
        """What it reads and writes."""
        return Traffic(self.data_bytes, self.weight_bytes) + self.behind.traffic

    @property
    def macs(self) -> int:
        """Multiplications of its kernels, zeros that fill them up included."""
        return self.rows * self.row * self.kernels * self.kernel_bytes // self.element_bytes


@dataclass(frozen=True)
class Planar:
    """An operation of the PDP or the CDP.

    Attributes
    ----------
    source_bytes, output_bytes : int
        Read; 0 where the SDP hands over. Written.
    values : int
        Of its input, in whole atoms.
    element_bytes : int
        1 or 2.
    pools : bool
        PDP, not CDP.
    """

    source_bytes: int
    output_bytes: int
    values: int
    element_bytes: int
    pools: bool

    @property
    def traffic(self) -> Traffic:
        """What it reads and writes."""
        return Traffic(data=self.source_bytes, output=self.output_bytes)


@dataclass(frozen=True)
class Move:
    """A copy: BDMA or Rubik.

    Attributes
    ----------
    moved_bytes : int
        Read, and written.
    """

    moved_bytes: int

    @property
    def traffic(self) -> Traffic:
        """What it reads and writes."""
        return Traffic(data=self.moved_bytes, output=self.moved_bytes)


Operation = Convolution | Point | Planar | Move


@dataclass(frozen=True)
class Cost:
    """What an operation takes.

    Attributes
    ----------
    cycles : float
        From its start until its output is in memory.
    bound : Bound
        What most of them are spent on.
    shares : dict[Bound, float]
        Cycles by what they are spent on; their sum is `cycles`.
    traffic : Traffic
        What it reads and writes.
    extrapolated : tuple[str, ...]
        Why no measurement stands behind it; empty where one does.
    data_loaded, weights_loaded, sequenced, accumulated : float
        Of a convolution: cycles from its start until its data, and its weights, stood in the buffer, and until the
        sequencer and the accumulator were done. Of others `cycles`.
    macs : int
        Multiplications of a convolution.
    """

    cycles: float
    bound: Bound
    shares: dict[Bound, float]
    traffic: Traffic
    extrapolated: tuple[str, ...]
    data_loaded: float
    weights_loaded: float
    sequenced: float
    accumulated: float
    macs: int = 0


@dataclass(frozen=True)
class Spent:
    """The cycles of an operation by what they are spent on, and of a convolution its steps; see `Cost`."""

    shares: dict[Bound, float]
    data_loaded: float
    weights_loaded: float
    sequenced: float
    accumulated: float
