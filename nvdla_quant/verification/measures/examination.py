"""What was measured of a loadable: every step of it, and every tensor of the network that it holds."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.decode.program import Program
from nvdla_quant.emulator.integer.sdp_run import with_operands
from nvdla_quant.emulator.memory import Values
from nvdla_quant.emulator.operations import CpuOperation, Operation, SdpOperation
from nvdla_quant.errors import NetworkError
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.execution.simulated import INT8_MAX, INT8_MIN, Simulation
from nvdla_quant.hardware.targets import QuantizationMode
from nvdla_quant.loadable.structs import EmuOperation
from nvdla_quant.network.graph import Network
from nvdla_quant.network.passes import fold_normalisation
from nvdla_quant.table.table import CalibrationTable
from nvdla_quant.verification.measures.comparison import Comparing, Comparison, Floats
from nvdla_quant.verification.measures.local import Local
from nvdla_quant.verification.measures.outputs import outputs_of
from nvdla_quant.verification.measures.weights import WeightCheck

REFERENCE_IMAGES = 2
"""Images whose tensors the references hold at a time: it bounds the memory."""
SIMULATED_VALUES, SIMULATED_IMAGES = 1 << 23, 2
"""Values that the simulation makes, of so many images at least: of large networks it takes not all."""


@dataclass(frozen=True)
class Misreading:
    """Inputs that a step takes for another scale than they have.

    Attributes
    ----------
    kind : str
        Why: ``pooling`` or ``concat`` (their entries differ from their inputs'), ``eltwise`` (the scale of a sum's one
        input was overwritten by the other's), ``scale``.
    layer : str
        The pooling, concatenation or sum.
    scales : tuple[tuple[str, float, float], ...]
        (input, scale that it is taken for, scale that it has).
    explained : bool
        Whether what wrote an input is right, so that the fault is here.
    """

    kind: str
    layer: str
    scales: tuple[tuple[str, float, float], ...]
    explained: bool


@dataclass(frozen=True, eq=False)
class Examined:
    """One step of the loadable, measured.

    Attributes
    ----------
    layer : str
        Layer whose tensor it contributes to.
    layers : tuple[str, ...]
        Layers that it computes, or a part of.
    kinds : frozenset[str]
        Their kinds.
    operations : tuple[Operation, ...]
        The operations; the last one, or each, writes what it makes.
    values : Values
        What it wrote, (n, channels, height, width), in the device's domain.
    scale : float
        Real value of one step as the table says; 1 in fp16.
    effective : float
        Real value of one step as it turned out.
    reason : str
        Why that differs from the table; empty where it does not.
    local : Local
        Beside what it should make of its inputs.
    weights : tuple[WeightCheck, ...]
        Weights that could be compared.
    leeways : tuple[NDArray[float64], ...]
        Relative errors that what weights make may have, as they are rounded.
    gains : NDArray[float64] or None
        How many times too large each kernel's multiplier is; None where that is right or unknown.
    misread : Misreading or None
        How the loadable takes its inputs for what they are not, where that explains what it wrote.
    reads_input : bool
        Whether it reads the network's input and nothing else.
    strays : bool
        Whether it reads bytes that nothing wrote.
    merged : bool
        Whether it stands for several operations in a row, whose inner roundings are not known.
    suspect : int
        Number of the operation where it is wrong, or of the last one.
    remake : callable or None
        What the step makes of another input, without a ReLU at its end; None where that cannot be asked.
    rectified : bool
        Whether there is such a ReLU.
    """

    layer: str
    layers: tuple[str, ...]
    kinds: frozenset[str]
    operations: tuple[Operation, ...]
    values: Values
    scale: float
    effective: float
    reason: str
    local: Local
    weights: tuple[WeightCheck, ...]
    leeways: tuple[NDArray[np.float64], ...]
    gains: NDArray[np.float64] | None
    misread: Misreading | None
    reads_input: bool
    strays: bool
    merged: bool
    suspect: int
    remake: Callable[[Floats], Floats] | None
    rectified: bool

    @property
    def is_right(self) -> bool:
        """Whether the loadable does here what the network says, up to roundings."""
        right = self.local.is_right and self.misread is None and self.gains is None
        return right and all(check.is_right for check in self.weights)

    @property
    def constant_channels(self) -> int:
        """Channels that have one value at every pixel of every image."""
        return constant_channels(self.values)


@dataclass(frozen=True)
class Beside:
    """A tensor beside the references.

    Attributes
    ----------
    fp32 : Comparison
        Beside the float network.
    simulated : Comparison or None
        Beside the simulated int8 network; None where it has no such tensor, and in fp16.
    of_table : Comparison or None
        The simulated int8 network beside the float network: what the table costs anyway.
    """

    fp32: Comparison
    simulated: Comparison | None = None
    of_table: Comparison | None = None


@dataclass(frozen=True, eq=False)
class Held:
    """A tensor of the network as the loadable holds it.

    Attributes
    ----------
    layer : str
        Its layer.
    steps : tuple[Examined, ...]
        The steps that make it.
    values : Values
        (n, channels, height, width) in the device's domain.
    scale, effective : float
        Real value of one step as the table says, and as it turned out.
    beside : Beside
        Beside the references.
    """

    layer: str
    steps: tuple[Examined, ...]
    values: Values
    scale: float
    effective: float
    beside: Beside

    @property
    def is_softmax(self) -> bool:
        """Whether a softmax on the CPU wrote it."""
        last = self.steps[-1].operations[-1]
        return isinstance(last, CpuOperation) and last.kind is EmuOperation.SOFTMAX

    @property
    def on_cpu(self) -> bool:
        """Whether the CPU wrote it."""
        return isinstance(self.steps[-1].operations[-1], CpuOperation)

    @property
    def saturated(self) -> int:
        """Values at the ends of the range: -128 and 127 in int8, infinite or not a number in fp16."""
        if self.values.dtype == np.int8:
            return int(np.count_nonzero((self.values == INT8_MIN) | (self.values == INT8_MAX)))
        return int(np.count_nonzero(~np.isfinite(self.values)))

    @property
    def zeros(self) -> int:
        """Values that are 0."""
        return int(np.count_nonzero(self.values == 0))

    @property
    def constant_channels(self) -> int:
        """Channels that have one value at every pixel of every image."""
        return constant_channels(self.values)


@dataclass(frozen=True)
class Fault:
    """Something in a claim, or in the outputs, that is not so: of which layer, at which operation, and what."""

    layer: str
    operation: int | None
    text: str


@dataclass(frozen=True)
class Doubt:
    """Why nothing can be said: at which operation, and what could not be placed or done."""

    operation: int | None
    text: str


@dataclass(frozen=True, eq=False)
class Examination:
    """A loadable, step by step.

    Attributes
    ----------
    program : Program
        The loadable.
    original : Network
        The network as it was given.
    table : CalibrationTable or None
        int8: the scales.
    mode : QuantizationMode or None
        int8: how its weights share scales, as the claim or its weights tell.
    images : NDArray[float32]
        What was fed, as it stands for in the network.
    clipped_inputs : float
        Share of the inputs that the table's scale cannot represent.
    steps : tuple[Examined, ...]
        In the order of execution.
    held : tuple[Held, ...]
        Tensors of the network, in the order in which they are made.
    scores : tuple[Held, ...]
        Of each output, the tensor that is written into it, or before a final softmax; of one that is joined of tensors,
        these. None of them where they were not found.
    claimed : bool
        Whether a claim said what the operations stand for.
    faults : tuple[Fault, ...]
        What of the claim is not so.
    astray : tuple[Fault, ...]
        Outputs that hold something else than they have to.
    doubts : tuple[Doubt, ...]
        What could not be found out.
    """

    program: Program
    original: Network
    table: CalibrationTable | None
    mode: QuantizationMode | None
    images: Floats
    clipped_inputs: float
    steps: tuple[Examined, ...] = ()
    held: tuple[Held, ...] = ()
    scores: tuple[Held, ...] = ()
    claimed: bool = False
    faults: tuple[Fault, ...] = ()
    astray: tuple[Fault, ...] = ()
    doubts: tuple[Doubt, ...] = ()

    @property
    def input_scale(self) -> float:
        """Real value of one step of the input; 1 in fp16."""
        return 1.0 if self.table is None else self.table[self.original.only_input.name]


@dataclass(frozen=True, eq=False)
class Subject:
    """What is to be examined.

    Attributes
    ----------
    program : Program
        A loadable, the arrays of its operands read.
    network : Network
        The network.
    table : CalibrationTable or None
        int8: the scales.
    fed : Values
        Images in the device's domain.
    images : NDArray[float32]
        The same in the network's.
    device : NDArray[float32]
        What `fed` stands for in the network.
    clipped : float
        Share of the images that the input's scale cannot represent.
    """

    program: Program
    network: Network
    table: CalibrationTable | None
    fed: Values
    images: Floats
    device: Floats
    clipped: float


def subject_of(program: Program, network: Network, table: CalibrationTable | None, images: Floats) -> Subject:
    """Bring images to the device's domain.

    Raises
    ------
    NetworkError
        The images do not fit the network, or the loadable's input or output is another one's.
    """
    check_shapes(program, network, images)
    fed, clipped = _to_device(program, network, table, images)
    scale = 1.0 if table is None else table[network.only_input.name]
    device = fed[:, : network.only_input.chw[0]].astype(np.float32) * np.float32(scale)
    return Subject(_with_operands_read(program), network, table, fed, images, device, clipped)


def constant_channels(values: Values) -> int:
    """Return how many channels have one value at every pixel of every image."""
    lines = values.reshape(len(values), values.shape[1], -1)
    return int(np.count_nonzero((lines == lines[:1, :, :1]).all(axis=(0, 2))))


def compare_with_references(
    subject: Subject,
    reference: Reference,
    mode: QuantizationMode | None,
    tensors: Sequence[tuple[str, Values, float]],
    rounded: Sequence[str],
    ends: Collection[str],
) -> "list[Beside]":
    """Compare tensors with the float network and, in int8, with a simulation that rounds where the loadable does.

    Parameters
    ----------
    subject : Subject
        What is examined.
    reference : Reference
        The float network; it has all these tensors.
    mode : QuantizationMode or None
        int8: how weights share scales.
    tensors : Sequence[tuple[str, Values, float]]
        Tensor, its values, (n, channels, height, width), and the real value of 1.
    rounded : Sequence[str]
        Layers of the original network whose tensors are rounded.
    ends : Collection[str]
        Tensors among which the scores are.

    Returns
    -------
    list[Beside]
        One for each tensor; what the table costs of the ends alone.
    """
    names = list(dict.fromkeys(name for name, _, _ in tensors))
    references = [reference]
    if subject.table is not None and mode is not None:
        folded = fold_normalisation(subject.network, keep=frozenset(rounded))
        there = [name for name in names if name in folded.by_name]
        steps = (folded.only_input.name, *(name for name in dict.fromkeys(rounded) if name in folded.by_name))
        references.append(
            Simulation(folded, subject.table, mode, there, rounded=steps, batch_size=reference.batch_size, packed=False)
        )
    compared = [tuple(Comparing(values.shape[1]) for _ in range(3)) for _, values, _ in tensors]
    first = 0
    values_of_one = sum(values[0].size for _, values, _ in tensors)
    some = max(SIMULATED_VALUES // values_of_one, SIMULATED_IMAGES)
    shown = subject.images, subject.images[:some]
    batches = (one.batches(images) for one, images in zip(references, shown, strict=False))
    for floats, *simulated in zip_longest(*batches, fillvalue={}):
        for number, (name, values, scale) in enumerate(tensors):
            beside_fp32, beside_simulated, of_table = compared[number]
            part = values[first : first + reference.batch_size]
            expected = floats[name].reshape(part.shape)
            beside_fp32.add(part, scale, expected)
            for tensor in (batch[name] for batch in simulated if name in batch):
                beside_simulated.add(part, scale, tensor.reshape(part.shape))
                if name in ends:
                    of_table.add(tensor.reshape(part.shape), 1.0, expected)
        first += reference.batch_size
    return [Beside(fp32.result, *(one.result if one.is_used else None for one in others)) for fp32, *others in compared]


def check_shapes(program: Program, network: Network, images: Floats) -> None:
    """Check that a loadable, a network and images may belong together.

    Raises
    ------
    NetworkError
        They do not.
    """
    if len(program.inputs) != 1:
        raise NetworkError(f"the loadable has {len(program.inputs)} inputs, expected one")
    outputs_of(program.output_names, network)
    wide = [operation for operation in program.operations if operation.dtype == np.int16]
    if wide:
        raise NetworkError(f"operation {wide[0].index} ({wide[0].unit}) writes int16; int8 and fp16 can be verified")
    channels, height, width = network.only_input.chw
    if images.ndim != 4 or images.shape[1:] != (channels, height, width) or len(images) == 0:
        raise NetworkError(
            f"images have the shape {images.shape}, expected (n, {channels}, {height}, {width}) for the network's "
            f"input {network.only_input.name!r}"
        )
    if not np.isfinite(images).all():
        raise NetworkError("images hold values that are not finite")
    port = program.inputs[0]
    if port.shape[1:] != (height, width) or port.shape[0] < channels:
        raise NetworkError(
            f"the loadable's input {port.name!r} is {'x'.join(map(str, port.shape))}, the network's "
            f"{'x'.join(map(str, (channels, height, width)))}; is it the network of this loadable?"
        )


def _to_device(
    program: Program, network: Network, table: CalibrationTable | None, images: Floats
) -> tuple[Values, float]:
    """Return images in the device's domain, missing channels zero, and the share of values that are clipped."""
    port = program.inputs[0]
    fed: Values = np.zeros((len(images), *port.shape), port.dtype)
    if table is None:
        fed[:, : images.shape[1]] = images
        return fed, 0.0
    steps = np.rint(images.astype(np.float64) / table[network.only_input.name])
    fed[:, : images.shape[1]] = np.clip(steps, INT8_MIN, INT8_MAX)
    return fed, float(np.mean((steps < INT8_MIN) | (steps > INT8_MAX)))


def _with_operands_read(program: Program) -> Program:
    """Return `program` with the values of its SDP operations' arrays, but for those that it computes."""
    operations = tuple(
        with_operands(operation, program.constant)
        if isinstance(operation, SdpOperation) and operation.index not in program.computed
        else operation
        for operation in program.operations
    )
    return replace(program, operations=operations)
