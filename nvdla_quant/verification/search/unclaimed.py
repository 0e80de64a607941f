"""A loadable without a claim: what its steps compute is searched for, and each is measured.

Three comparisons for each tensor that the loadable writes:

* with fp32: what everything before and here costs together;
* with a simulation of the same int8 network, which rounds the same tensors with the same table: what a right loadable
  costs anyway;
* with what this step should make of its own inputs (`Local`): the float layers applied to the values that the loadable
  itself computed before. Only roundings may differ, so the first step that is wrong shows, whatever came before it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nvdla_quant.emulator.decode.program import Program
from nvdla_quant.emulator.memory import Values
from nvdla_quant.emulator.operations import ConvOperation, Fp16, Operation, SdpOperation
from nvdla_quant.emulator.run import run_tensors
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.execution.simulated import INT8_MAX, INT8_MIN, weight_steps
from nvdla_quant.hardware.targets import QuantizationMode
from nvdla_quant.network.graph import Convolution, InnerProduct, Layer, Network, ReLU, Tensor
from nvdla_quant.network.onnx.writer import to_onnx
from nvdla_quant.network.passes import fold_normalisation, write_out_groups
from nvdla_quant.network.shapes import assemble
from nvdla_quant.network.views import readers, viewed
from nvdla_quant.table.fusion import FUSED_AFTER
from nvdla_quant.table.table import CalibrationTable
from nvdla_quant.verification.measures.comparison import Floats
from nvdla_quant.verification.measures.examination import (
    REFERENCE_IMAGES,
    Doubt,
    Examination,
    Examined,
    Fault,
    Held,
    Misreading,
    Subject,
    compare_with_references,
)
from nvdla_quant.verification.measures.local import Local, local_of
from nvdla_quant.verification.measures.outputs import ends_of, misplaced, outputs_of
from nvdla_quant.verification.measures.sessions import session_of
from nvdla_quant.verification.measures.weights import WeightCheck, check_weights
from nvdla_quant.verification.search.mapping import Step, UndecidedError, base_name, expand, map_operations

MAPPED_IMAGES = 2
"""Images that layers are told apart by."""


def examine_by_search(subject: Subject, seconds: float) -> Examination:
    """Examine a loadable whose operations nobody has explained; `seconds` bound the search for what they compute."""
    program, network, table = subject.program, subject.network, subject.table
    expanded = expand(network)
    wrote = _run(program, subject.fed)
    few = slice(0, MAPPED_IMAGES)
    reference = Reference(expanded, list(expanded.tensors), batch_size=REFERENCE_IMAGES, packed=False)
    fp32 = reference.run(subject.images[few])
    found = Examination(program, network, table, None, subject.device, subject.clipped)
    try:
        steps, ends = map_operations(
            program,
            expanded,
            {position: values[few] for position, values in wrote.items()},
            {name: _as_held(values, name, table) for name, values in fp32.items()},
            seconds,
        )
    except UndecidedError as error:
        return replace(found, doubts=(Doubt(error.operation, str(error)),))
    checks = [_weights_of(program, write_out_groups(expanded), step) for step in steps]
    mode = _mode(expanded, steps, checks) if table is not None else None
    examiner = _Examiner(program, expanded, table, subject.device)
    for step, check in zip(steps, checks, strict=True):
        examiner.add(step, wrote, check)
    held = tuple(_held(subject, reference, steps, examiner.found, mode))
    outputs = outputs_of(program.output_names, expanded)
    if holds := {one.number: ends[one.number] for one in outputs if ends[one.number] != one.tensor}:
        first = outputs[min(holds)].tensor
        found = replace(found, astray=(Fault(base_name(first), None, misplaced(outputs, holds)),))
    scores = tuple(_scores(one.tensor, steps, held) for one in outputs)
    return replace(found, mode=mode, steps=tuple(examiner.found), held=held, scores=scores)


def _scores(tensor: str, steps: Sequence[Step], held: Sequence[Held]) -> Held:
    """Return the tensor that tells whether an output is right: it, or what a softmax reads."""
    number = max(number for number, step in enumerate(steps) if step.tensor == tensor)
    if held[number].is_softmax and steps[number].sources[0] >= 0:
        return held[steps[number].sources[0]]
    return held[number]


def _held(
    subject: Subject,
    reference: Reference,
    steps: Sequence[Step],
    found: Sequence[Examined],
    mode: QuantizationMode | None,
) -> Iterator[Held]:
    """Yield what each step holds, beside the references."""
    rounded = [base_name(step.tensor) for step in steps]
    values = [(step.tensor, one.values, one.effective) for step, one in zip(steps, found, strict=True)]
    beside = compare_with_references(subject, reference, mode, values, rounded, ends_of(reference.network))
    for one, compared in zip(found, beside, strict=True):
        yield Held(one.layer, (one,), one.values, one.scale, one.effective, compared)


def _as_held(values: Floats, tensor: str, table: CalibrationTable | None) -> Floats:
    """Return `values` clipped to what int8 holds of them: a table that clips must not make a tensor look another."""
    if table is None or base_name(tensor) not in table.scales:
        return values
    scale = table[base_name(tensor)]
    return np.clip(values, INT8_MIN * scale, INT8_MAX * scale)


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
    run_tensors(program, {program.inputs[0].name: inputs}, fp16=Fp16.FAST, on_step=keep)
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
        self._steps: list[Step] = []
        self._real_values: list[Floats] = []

    def add(self, step: Step, wrote: Mapping[int, Values], weights: tuple[WeightCheck, ...]) -> None:
        """Examine the next step."""
        operations = tuple(self.program.operations[position] for position in step.operations)
        values = self._assembled(step, wrote)
        layers = layers_of(self.network, step, weights)
        expected = compute(self.network, layers, step.tensor, self._inputs(step))
        effective, reason, local = self._judge(step, operations, values, expected, weights)
        misread = None
        if not local.is_right:
            for other in self._misreadings(step):
                again = compute(self.network, layers, step.tensor, self._inputs(step, other))
                at, why, beside = self._judge(step, operations, values, again, weights)
                if beside.is_right:
                    misread, effective, reason = other, at, why
                    break
        bare = layers[:-1] if layers and isinstance(layers[-1].operation, ReLU) else layers

        def remake(inputs: Floats) -> Floats:
            return compute(self.network, bare, bare[-1].name, {self.network.only_input.name: inputs})

        self._steps.append(step)
        self._real_values.append(values.astype(np.float32) * np.float32(effective))
        self.found.append(
            Examined(
                layer=base_name(step.tensor),
                layers=step.layers,
                kinds=frozenset(self.network.by_name[name].kind for name in step.layers),
                operations=operations,
                values=values,
                scale=self._table_scale(step.tensor),
                effective=effective,
                reason=reason,
                local=local,
                weights=weights,
                leeways=tuple(check.leeway for check in weights if check.is_right),
                gains=None,
                misread=misread,
                reads_input=step.sources == (-1,),
                strays=step.strays,
                merged=len(step.operations) > len(step.parts),
                suspect=operations[-1].index,
                remake=remake if bare else None,
                rectified=len(bare) < len(layers),
            )
        )

    def _name(self, source: int) -> str:
        return self.network.only_input.name if source < 0 else self._steps[source].tensor

    def _real(self, source: int) -> Floats:
        return self.images if source < 0 else self._real_values[source]

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
        leeways = [check.leeway for check in weights if check.is_right]
        local = local_of(operations, values, expected, scale, leeways)
        if not local.is_right and self.table is not None:
            for reason, other in self._other_scales(step):
                if other != scale:
                    again = local_of(operations, values, expected, other, leeways)
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
        scales = {} if misread is None else {name: taken for name, taken, _ in misread.scales}
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
                    yield self._misreading(step, "concat", name, off)
        listed = {name: self._table_scale(name) for name in held}
        if off := {name: scale for name, scale in listed.items() if scale != held[name]}:
            first = next(iter(off))
            kind = self.network.by_name[first].kind if first in self.network.by_name else "input"
            yield self._misreading(step, "pooling" if kind == "Pooling" else "scale", first, off)
        for name in held:
            for layer in readers(self.network, name):
                if layer.kind == "Eltwise":
                    for other in (viewed(self.network, part) for part in layer.inputs):
                        taken = self.table[base_name(other)]
                        if other != name and taken != held[name]:
                            yield self._misreading(step, "eltwise", layer.name, {name: taken})

    def _misreading(self, step: Step, kind: str, layer: str, taken: Mapping[str, float]) -> Misreading:
        scales = []
        explained = True
        for source in step.sources:
            name = self._name(source)
            if name in taken:
                scales.append((name, taken[name], self._scale_of(source)))
                explained = explained and (source < 0 or self.found[source].is_right)
        return Misreading(kind, layer, tuple(scales), explained)


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
    session = session_of(to_onnx(part, [tensor]).SerializeToString())
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
