"""A loadable beside the float network, layer by layer.

Three comparisons for each tensor that the loadable writes:

* with fp32: what everything before and here costs together;
* with a simulation of the same int8 network, which rounds the same tensors with the same table: what a right loadable
  costs anyway;
* with what this step should make of its own inputs (`Local`): the float layers applied to the values that the loadable
  itself computed before. Only roundings may differ, so the first step that is wrong shows, whatever came before it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from nvdla_quant.emulator.memory import Values
from nvdla_quant.emulator.operations import ConvOperation, CpuOperation, Fp16, Operation, SdpOperation
from nvdla_quant.emulator.program import Program
from nvdla_quant.emulator.run import run
from nvdla_quant.emulator.sdp_run import with_operands
from nvdla_quant.errors import NetworkError, TableError
from nvdla_quant.hardware import Precision, QuantizationMode
from nvdla_quant.loadable.structs import EmuOperation
from nvdla_quant.network.graph import Convolution, InnerProduct, Layer, Network, Tensor
from nvdla_quant.network.passes import fold_normalisation, write_out_groups
from nvdla_quant.network.shapes import assemble
from nvdla_quant.network.views import readers, viewed
from nvdla_quant.reference import Reference, to_onnx
from nvdla_quant.simulation import INT8_MAX, INT8_MIN, Simulation, weight_steps
from nvdla_quant.table.consistency import check_complete
from nvdla_quant.table.fusion import FUSED_AFTER
from nvdla_quant.table.table import CalibrationTable
from nvdla_quant.verification.mapping import Step, base_name, expand, map_operations
from nvdla_quant.verification.tolerance import LARGEST, Tolerance, step_tolerance
from nvdla_quant.verification.weights import WeightCheck, check_weights

Floats = NDArray[np.float32]

MAPPED_IMAGES = 2
"""Images that layers are told apart by."""
HALF_LARGEST = 65504.0
"""Largest half: what lies beyond saturates."""
DRIFT_DEVIATIONS = 5.0
"""Standard deviations that the mean of roundings may lie off 0: one channel in a million by chance."""
HALF_TOLERANCE = 0.01
"""fp16: share of a tensor's root mean square that a result may lie from the exact one; right ones reach 0.004."""


@dataclass(frozen=True)
class Comparison:
    """Values of a tensor beside a reference.

    Attributes
    ----------
    sqnr : float
        Signal to noise in dB; infinite where they are equal, -infinite where values are not finite.
    cosine : float
        Cosine of the angle between the two; 0 where one is all zero.
    correlation : float
        With the mean of each channel subtracted from both, over images and pixels: what varies with the input.
    """

    sqnr: float
    cosine: float
    correlation: float


@dataclass(frozen=True)
class Local:
    """A step beside what the float layers make of the same inputs.

    Attributes
    ----------
    expected : NDArray[float32]
        Real values, (n, channels, height, width).
    distance : NDArray[float64]
        How far each value lies from it, in int8 steps (fp16: in root mean squares of the tensor).
    tolerance : NDArray[float64]
        What roundings explain, for each value.
    drift : NDArray[float64]
        Mean difference of each channel beyond what roundings explain; 0 where they do.
    """

    expected: Floats
    distance: NDArray[np.float64]
    tolerance: NDArray[np.float64]
    drift: NDArray[np.float64]

    @property
    def error(self) -> float:
        """Largest distance."""
        return float(self.distance.max())

    @property
    def share(self) -> float:
        """Share of values beyond the tolerance."""
        return float(np.mean(self.beyond))

    @property
    def beyond(self) -> NDArray[np.bool_]:
        """Values that roundings do not explain; a tolerance that is not a number explains none."""
        return ~(self.distance <= self.tolerance)

    @property
    def is_right(self) -> bool:
        """Whether roundings explain every difference."""
        return not self.beyond.any() and not self.drift.any()


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
    scales : tuple[tuple[str, float], ...]
        (input, scale that it is taken for).
    """

    kind: str
    layer: str
    scales: tuple[tuple[str, float], ...]


@dataclass(frozen=True, eq=False)
class Examined:
    """One step of the loadable, measured.

    Attributes
    ----------
    step : Step
        What it computes.
    operations : tuple[Operation, ...]
        The operations of the step.
    values : NDArray
        What it wrote, (n, channels, height, width), in the device's domain.
    scale : float
        Real value of one step as the table says; 1 in fp16.
    effective : float
        Real value of one step as it turned out.
    reason : str
        Why that differs from the table; empty where it does not.
    real : NDArray[float32]
        Values times the effective scale.
    local : Local
        Beside what it should make of its inputs.
    misread : Misreading or None
        How the loadable takes its inputs for what they are not, where that explains what it wrote.
    weights : tuple[WeightCheck, ...]
        Weights that could be compared.
    fp32, simulated : Comparison or None
        Beside the references.
    """

    step: Step
    operations: tuple[Operation, ...]
    values: Values
    scale: float
    effective: float
    reason: str
    real: Floats
    local: Local
    misread: Misreading | None
    weights: tuple[WeightCheck, ...]
    fp32: Comparison
    simulated: Comparison | None

    @property
    def is_right(self) -> bool:
        """Whether the loadable does here what the network says, up to roundings."""
        return self.local.is_right and self.misread is None and all(check.is_right for check in self.weights)

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
        lines = np.moveaxis(self.values, 1, 0).reshape(self.values.shape[1], -1)
        return int(np.count_nonzero((lines == lines[:, :1]).all(axis=1)))


@dataclass(frozen=True, eq=False)
class Examination:
    """A loadable, layer by layer.

    Attributes
    ----------
    program : Program
        The loadable.
    network : Network
        The network that its steps are named after (see `mapping.expand`).
    original : Network
        The network as it was given.
    table : CalibrationTable or None
        int8: the scales.
    mode : QuantizationMode or None
        int8: how its weights share scales, as its weights tell.
    steps : tuple[Examined, ...]
        In the order of execution.
    inputs : Values
        What was fed.
    images : NDArray[float32]
        What that stands for in the network.
    clipped_inputs : float
        Share of the inputs that the table's scale cannot represent.
    """

    program: Program
    network: Network
    original: Network
    table: CalibrationTable | None
    mode: QuantizationMode | None
    steps: tuple[Examined, ...]
    inputs: Values
    images: Floats
    clipped_inputs: float

    @property
    def input_scale(self) -> float:
        """Real value of one step of the input; 1 in fp16."""
        return 1.0 if self.table is None else self.table[self.network.only_input.name]

    @property
    def outputs(self) -> Examined:
        """The step that writes the network's output."""
        return self.steps[-1]

    @property
    def scores(self) -> Examined:
        """The step before a final softmax; the last one where there is none."""
        last = self.steps[-1]
        softmax = isinstance(last.operations[-1], CpuOperation) and last.operations[-1].kind is EmuOperation.SOFTMAX
        return self.steps[last.step.sources[0]] if softmax and last.step.sources[0] >= 0 else last


def examine(program: Program, network: Network, table: CalibrationTable | None, images: Floats) -> Examination:
    """Run a loadable and compare every step of it with the network.

    Parameters
    ----------
    program : Program
        A decoded loadable of one input and one output.
    network : Network
        The network that it was compiled from, or one that computes the same, with its weights.
    table : CalibrationTable or None
        The table that it was compiled with (int8); fp16 needs none.
    images : NDArray[float32]
        (n, channels, height, width) in the network's own domain.

    Raises
    ------
    NetworkError
        The images do not fit the network, or the loadable is of another network.
    TableError
        int8, and the table is missing or lacks an entry.
    EmulationError
        The loadable cannot be run here.
    """
    _check_shapes(program, network, images)
    if program.precision is Precision.INT8:
        if table is None:
            raise TableError("no calibration table given, but the loadable is int8: its scales stand in no loadable")
        check_complete(network, table)
    else:
        table = None
    program = _with_operands_read(program)
    expanded = expand(network)
    inputs, clipped = _to_device(program, network, table, images)
    fp32 = Reference(expanded, list(expanded.tensors)).run(images)
    wrote = _run(program, inputs)
    few = slice(0, MAPPED_IMAGES)
    steps = map_operations(
        program,
        expanded,
        {position: values[few] for position, values in wrote.items()},
        {name: _as_held(values[few], name, table) for name, values in fp32.items()},
    )
    checks = [_weights_of(program, write_out_groups(expanded), step) for step in steps]
    mode = _mode(expanded, steps, checks) if table is not None else None
    simulated = _simulate(network, table, mode, steps, images) if table is not None and mode is not None else {}
    scale = 1.0 if table is None else table[network.only_input.name]
    device = inputs[:, : network.only_input.chw[0]].astype(np.float32) * np.float32(scale)
    examiner = _Examiner(program, expanded, table, device)
    for step, check in zip(steps, checks, strict=True):
        examiner.add(step, wrote, check, fp32, simulated)
    return Examination(program, expanded, network, table, mode, tuple(examiner.found), inputs, device, clipped)


def compare(values: NDArray[np.generic], reference: NDArray[np.generic]) -> Comparison:
    """Compare values with a reference of the same shape, ``(n, channels, ...)``."""
    got = values.astype(np.float64).reshape(len(values), values.shape[1], -1)
    want = reference.astype(np.float64).reshape(got.shape)
    if not np.isfinite(got).all():
        return Comparison(-np.inf, 0.0, 0.0)
    noise, power = float(np.sum((got - want) ** 2)), float(np.sum(want**2))
    with np.errstate(divide="ignore"):
        sqnr = np.inf if noise == 0 else float(10 * np.log10(power / noise))
    centred = [part - part.mean(axis=(0, 2), keepdims=True) for part in (got, want)]
    return Comparison(sqnr, _cosine(got, want), _cosine(*centred))


def _cosine(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    # Not as matrix products: those start threads, which cost more than such short sums.
    norm = float(np.sqrt(np.sum(first**2) * np.sum(second**2)))
    return float(np.sum(first * second)) / norm if norm > 0 else float(np.array_equal(first, second))


def _as_held(values: Floats, tensor: str, table: CalibrationTable | None) -> Floats:
    """Return `values` clipped to what int8 holds of them: a table that clips must not make a tensor look another."""
    if table is None or base_name(tensor) not in table.scales:
        return values
    scale = table[base_name(tensor)]
    return np.clip(values, INT8_MIN * scale, INT8_MAX * scale)


def _with_operands_read(program: Program) -> Program:
    """Return `program` with the values of its SDP operations' arrays, but for those that it computes."""
    operations = tuple(
        with_operands(operation, program.constant)
        if isinstance(operation, SdpOperation) and operation.index not in program.computed
        else operation
        for operation in program.operations
    )
    return replace(program, operations=operations)


def _check_shapes(program: Program, network: Network, images: Floats) -> None:
    if len(program.inputs) != 1 or len(program.outputs) != 1:
        raise NetworkError(
            f"the loadable has {len(program.inputs)} inputs and {len(program.outputs)} outputs, expected one of each"
        )
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


def _run(program: Program, inputs: Values) -> dict[int, Values]:
    """Return what each operation wrote, by position in the program."""
    position = {operation.index: number for number, operation in enumerate(program.operations)}
    shapes = [(len(inputs), *operation.destination.shape) for operation in program.operations]
    wrote: dict[int, Any] = {}

    def keep(operation: Operation, values: Values, first: int) -> None:
        number = position[operation.index]
        array = wrote.setdefault(number, np.empty(shapes[number], values.dtype))
        array[first : first + len(values)] = values

    # Fast, since what the exact sums would change is far below what is judged here.
    run(program, inputs, fp16=Fp16.FAST, on_step=keep)
    return wrote


def _weights_of(program: Program, network: Network, step: Step) -> tuple[WeightCheck, ...]:
    """Compare the weights of a step that computes one convolution, each part of it by one operation."""
    layers = [network.by_name[name] for name in step.layers]
    kernels = [layer for layer in layers if isinstance(layer.operation, Convolution | InnerProduct)]
    if len(kernels) != 1 or len(step.parts) != len(step.operations):
        return ()
    convolutions = []
    for position, channel, _ in step.parts:
        operation = program.operations[position]
        if not isinstance(operation, SdpOperation) or not isinstance(operation.source, ConvOperation):
            return ()
        convolutions.append((channel, operation.source))
    check = check_weights(program, network, kernels[0], tuple(convolutions))
    return () if check is None else (check,)


def _mode(network: Network, steps: Sequence[Step], checks: Sequence[tuple[WeightCheck, ...]]) -> QuantizationMode:
    """Return how the weights share scales: per kernel where their factors are equal, or become so when unfolded."""
    votes = {QuantizationMode.PER_KERNEL: 0, QuantizationMode.PER_FILTER: 0}
    for step, found in zip(steps, checks, strict=True):
        for check in found:
            if check.is_right and np.count_nonzero(check.factors) > 1:
                votes[_mode_of(network, step, check)] += 1
    filtered = votes[QuantizationMode.PER_FILTER] > votes[QuantizationMode.PER_KERNEL]
    return QuantizationMode.PER_FILTER if filtered else QuantizationMode.PER_KERNEL


def _mode_of(network: Network, step: Step, check: WeightCheck) -> QuantizationMode:
    """Return the mode whose scales are closer to the factors of one convolution, BatchNorm folded or not."""
    part = _sub_network(network, [network.by_name[name] for name in step.layers], step.tensor)
    candidates = [network.by_name[check.layer].operation]
    candidates += [layer.operation for layer in fold_normalisation(part).layers if layer.kind in _KERNELS][:1]
    best: tuple[float, QuantizationMode] | None = None
    original = np.abs(check.float_weights).reshape(len(check.factors), -1).max(axis=1)
    for operation in candidates:
        weights = operation.weights  # type: ignore[union-attr]
        size = np.abs(weights).reshape(len(check.factors), -1).max(axis=1)
        for mode in (QuantizationMode.PER_KERNEL, QuantizationMode.PER_FILTER):
            steps = np.broadcast_to(weight_steps(weights, mode).ravel(), size.shape)
            # In units of the original weights, as the factors are.
            expected = steps * original / np.where(size > 0, size, 1)
            used = (check.factors != 0) & (expected > 0)
            distance = float(np.abs(np.log(np.abs(check.factors[used]) / expected[used])).mean()) if used.any() else 0.0
            if best is None or distance < best[0] - 1e-6:
                best = distance, mode
    assert best is not None
    return best[1]


_KERNELS = frozenset({"Convolution", "InnerProduct"})


def _simulate(
    network: Network, table: CalibrationTable, mode: QuantizationMode, steps: Sequence[Step], images: Floats
) -> dict[str, Floats]:
    """Return the tensors of an int8 network that rounds where the loadable does."""
    written = frozenset(base_name(step.tensor) for step in steps)
    folded = fold_normalisation(network, keep=written)
    names = [name for name in dict.fromkeys(step.tensor for step in steps) if name in folded.by_name]
    return Simulation(folded, table, mode, names, rounded=(folded.only_input.name, *names)).run(images)


def _sub_network(network: Network, layers: Sequence[Layer], output: str) -> Network:
    """Return `layers` as a network of its own, whose inputs are what they read from elsewhere."""
    inside = {layer.name for layer in layers}
    outside = dict.fromkeys(name for layer in layers for name in layer.inputs if name not in inside)
    inputs = [Tensor(name, network.tensors[name].shape, name) for name in outside]
    return assemble(output, inputs, layers)


class _Examiner:
    """Examines steps one after another; keeps what they turned out to hold."""

    def __init__(self, program: Program, network: Network, table: CalibrationTable | None, images: Floats) -> None:
        self.program, self.network, self.table, self.images = program, network, table, images
        self.found: list[Examined] = []

    def add(
        self,
        step: Step,
        wrote: Mapping[int, Values],
        weights: tuple[WeightCheck, ...],
        fp32: Mapping[str, Floats],
        simulated: Mapping[str, Floats],
    ) -> None:
        """Examine the next step."""
        operations = tuple(self.program.operations[position] for position in step.operations)
        values = self._assembled(step, wrote)
        layers = layers_of(self.network, step, weights)
        expected = compute(self.network, layers, step.tensor, self._inputs(step))
        scale = self._table_scale(step.tensor)
        effective, reason, local = self._judge(step, operations, values, expected, weights)
        misread = None
        if not local.is_right:
            for other in self._misreadings(step):
                again = compute(self.network, layers, step.tensor, self._inputs(step, other))
                at, why, beside = self._judge(step, operations, values, again, weights)
                if beside.is_right:
                    misread, effective, reason = other, at, why
                    break
        real = values.astype(np.float32) * np.float32(effective)
        close = simulated.get(step.tensor)
        self.found.append(
            Examined(
                step=step,
                operations=operations,
                values=values,
                scale=scale,
                effective=effective,
                reason=reason,
                real=real,
                local=local,
                misread=misread,
                weights=weights,
                fp32=compare(real, fp32[step.tensor].reshape(values.shape)),
                simulated=None if close is None else compare(real, close.reshape(values.shape)),
            )
        )

    def _name(self, source: int) -> str:
        return self.network.only_input.name if source < 0 else self.found[source].step.tensor

    def _real(self, source: int) -> Floats:
        return self.images if source < 0 else self.found[source].real

    def _table_scale(self, tensor: str) -> float:
        return 1.0 if self.table is None else self.table[base_name(tensor)]

    def _assembled(self, step: Step, wrote: Mapping[int, Values]) -> Values:
        """Return a step's tensor from its parts; what none of them covers is 0."""
        shape = self.network.tensors[step.tensor].chw
        first = wrote[step.parts[0][0]]
        whole: Values = np.zeros((len(first), *shape), first.dtype)
        for position, channel, row in step.parts:
            part = wrote[position]
            whole[:, channel : channel + part.shape[1], row : row + part.shape[2]] = part
        return whole

    def _judge(
        self,
        step: Step,
        operations: Sequence[Operation],
        values: Values,
        expected: Floats,
        weights: tuple[WeightCheck, ...],
    ) -> tuple[float, str, Local]:
        """Return (scale, reason, local) of the first scale that explains the values; the table's where none does."""
        scale = self._table_scale(step.tensor)
        local = local_of(operations, values, expected, scale, weights)
        if not local.is_right and self.table is not None:
            for reason, other in self._other_scales(step):
                if other != scale:
                    again = local_of(operations, values, expected, other, weights)
                    if again.is_right:
                        return other, reason, again
        return scale, "", local

    def _other_scales(self, step: Step) -> list[tuple[str, float]]:
        """Return scales, other than its own entry's, that a tensor may have without the loadable being wrong."""
        assert self.table is not None
        kinds = {self.network.by_name[name].kind for name in step.layers}
        found = []
        if kinds <= {"Pooling", "Concat"}:
            what = "pooling keeps" if kinds else "the operation keeps"
            found += [(f"{what} the scale of {self._name(source)}", self._scale_of(source)) for source in step.sources]
        for layer in readers(self.network, step.tensor):
            if layer.kind in FUSED_AFTER:
                found.append((f"rescaled for {layer.name} already", self.table[base_name(layer.name)]))
            if layer.kind in ("Eltwise", "Concat"):
                members = [viewed(self.network, name) for name in layer.inputs]
                members += [layer.name] if layer.kind == "Concat" else []
                found += [
                    (f"{layer.kind} {layer.name}: it has the scale of {name}", self.table[base_name(name)])
                    for name in members
                    if base_name(name) != base_name(step.tensor)
                ]
        return found

    def _scale_of(self, source: int) -> float:
        return self._table_scale(self.network.only_input.name) if source < 0 else self.found[source].effective

    def _inputs(self, step: Step, misread: Misreading | None = None) -> dict[str, Floats]:
        """Return the real values that a step reads, some at the scale that `misread` takes them for."""
        scales = {} if misread is None else dict(misread.scales)
        inputs = {}
        for source in step.sources:
            name = self._name(source)
            inputs[name] = self._real(source)
            if name in scales:
                inputs[name] = inputs[name] * np.float32(scales[name] / self._scale_of(source))
        return inputs

    def _misreadings(self, step: Step) -> Iterator[Misreading]:
        """Yield ways in which a step may take its inputs for what they are not, the likeliest first."""
        if self.table is None:
            return
        held = {self._name(source): self._scale_of(source) for source in step.sources}
        for name in step.layers:
            if self.network.by_name[name].kind == "Concat":
                whole = self.table[base_name(name)]
                parts = {viewed(self.network, part) for part in self.network.by_name[name].inputs} & held.keys()
                if off := {part: whole for part in sorted(parts) if held[part] != whole}:
                    yield Misreading("concat", name, tuple(off.items()))
        listed = {name: self._table_scale(name) for name in held}
        if off := {name: scale for name, scale in listed.items() if scale != held[name]}:
            first = next(iter(off))
            kind = self.network.by_name[first].kind if first in self.network.by_name else "input"
            yield Misreading("pooling" if kind == "Pooling" else "scale", first, tuple(off.items()))
        for name in held:
            for layer in readers(self.network, name):
                if layer.kind == "Eltwise":
                    for other in (viewed(self.network, part) for part in layer.inputs):
                        taken = self.table[base_name(other)]
                        if other != name and taken != held[name]:
                            yield Misreading("eltwise", layer.name, ((name, taken),))


def local_of(
    operations: Sequence[Operation],
    values: Values,
    expected: Floats,
    scale: float,
    weights: Sequence[WeightCheck],
    largest: float = LARGEST,
) -> Local:
    """Compare what operations wrote, at `scale`, with the real values that they should have written.

    `largest` bounds what may count as rounding.
    """
    if values.dtype == np.float16:
        exact = np.clip(expected.astype(np.float64), -HALF_LARGEST, HALF_LARGEST)
        size = float(np.sqrt(np.mean(exact**2))) or 1.0
        distance = np.abs(np.clip(values.astype(np.float64), -HALF_LARGEST, HALF_LARGEST) - exact) / size
        tolerance = np.full(distance.shape, HALF_TOLERANCE)
        drift = np.zeros(values.shape[1])
    else:
        exact = np.clip(expected.astype(np.float64) / scale, INT8_MIN, INT8_MAX)
        distance = np.abs(values - exact)
        allowed = step_tolerance(operations, values.shape[1])
        for check in weights:
            if check.is_right:
                allowed = allowed.with_leeway(check.leeway)
        tolerance = allowed.of(exact, largest)
        drift = _drift(values, exact, allowed)
    return Local(expected, np.where(np.isnan(distance), np.inf, distance), tolerance, drift)


def _drift(values: Values, exact: NDArray[np.float64], allowed: Tolerance) -> NDArray[np.float64]:
    """Return the mean difference of each channel where it is more than roundings explain, else 0.

    Values that saturate say nothing. What roundings have in common moves a channel by `allowed` at most. What is left
    of the others is uniform in half a step; equal exact values round alike, so the number of independent ones is Kish's
    effective sample size, (sum of counts)**2 / sum of counts**2. But where a channel's values lie within a step, all
    may be rounded the same way, however many they are: as far as rounding the exact values, moved, goes.
    """
    inside = np.abs(exact) < INT8_MAX
    count = np.maximum(inside.sum(axis=(0, 2, 3)), 1)

    def mean(differences: NDArray[np.float64]) -> NDArray[np.float64]:
        result: NDArray[np.float64] = np.where(inside, differences, 0).sum(axis=(0, 2, 3)) / count
        return result

    fixed, relative = (part[None, :, None, None] for part in (allowed.drift, allowed.relative))
    reach = np.minimum(fixed + relative * np.abs(exact), LARGEST)
    low = np.minimum(mean(np.rint(exact - reach) - exact), mean(-reach))
    high = np.maximum(mean(np.rint(exact + reach) - exact), mean(reach))
    independent = np.array([_independent(exact[:, channel][inside[:, channel]]) for channel in range(exact.shape[1])])
    noise = DRIFT_DEVIATIONS / np.sqrt(12 * independent)
    off = mean(values - exact)
    return np.where((off < low - noise) | (off > high + noise), off, 0.0)


def _independent(exact: NDArray[np.float64]) -> float:
    counts = np.unique(np.round(exact, 3), return_counts=True)[1].astype(np.float64)
    return float(counts.sum() ** 2 / np.sum(counts**2)) if len(counts) else 1.0


def layers_of(network: Network, step: Step, weights: Sequence[WeightCheck]) -> list[Layer]:
    """Return the step's layers, with the loadable's own weights where those are right: roundings are no error."""
    checked = {check.layer: check for check in weights if check.is_right}
    return [_with_weights(network.by_name[name], checked.get(name)) for name in step.layers]


def compute(network: Network, layers: Sequence[Layer], tensor: str, inputs: Mapping[str, Floats]) -> Floats:
    """Return what `layers` make of `inputs`, (n, channels, height, width)."""
    shape = network.tensors[tensor].chw
    if not layers:
        (values,) = inputs.values()
        return values
    part = _sub_network(network, layers, tensor)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    model = to_onnx(part, [tensor]).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    fed = {item.name: inputs[viewed(network, item.name)].reshape(-1, *item.shape) for item in part.inputs}
    (result,) = session.run([tensor], fed)
    values = np.asarray(result, np.float32)
    return values.reshape(len(values), *shape)


def _with_weights(layer: Layer, check: WeightCheck | None) -> Layer:
    if check is None:
        return layer
    real = check.real.transpose(0, 3, 1, 2).astype(np.float32)
    operation = layer.operation
    if isinstance(operation, Convolution):
        return replace(layer, operation=replace(operation, weights=real, group=1))
    if isinstance(operation, InnerProduct):
        return replace(layer, operation=replace(operation, weights=real.reshape(len(real), -1)))
    return layer
