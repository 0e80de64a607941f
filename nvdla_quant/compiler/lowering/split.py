"""Second stage: convolutions that the hardware has not become ones that it has.

A deconvolution is one convolution for each phase of its stride; groups become dense blocks of whole atoms; what does
not fit the convolution buffer runs with fewer kernels at a time or in parts of the channels (`cbuf.divide`). Rows and
columns are cut later, as that needs no tensor between.

Partial sums are int8 too, on every target: no SDP of nv_large and nv_small writes more. So each is stored twice: H is
the sum in coarse steps, L = sum - 127 H what is left, and a last convolution adds 127 H + L of all parts, exactly.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from nvdla_quant.compiler.lowering.lower import gather
from nvdla_quant.compiler.lowering.operations import ConvolutionStep, Derived, InterleaveStep, Join, Lowered, Part, Step
from nvdla_quant.compiler.lowering.tile import work_of
from nvdla_quant.errors import CompileError
from nvdla_quant.hardware.cbuf import Price, Shortage, divide, round_up
from nvdla_quant.hardware.targets import Precision, Target
from nvdla_quant.network.graph import Pair, Tensor, Weights
from nvdla_quant.network.passes import dense_groups
from nvdla_quant.support.rewrites import groups_together, phases

COARSE = 127.0
"""Steps of a partial sum's low half in one step of its high half: the largest int8 weight."""
FINE = 1 / 16
"""Step of the low half in steps of the output. So partial sums are kept to 1/32 of an output step, and may be 127 / 16,
nearly 8 times, as large as the largest output."""
GATHERED_KERNELS = 64
"""Outputs that one gathering convolution puts together: its zeros stay few, and so do the operations."""
MAX_CHANNELS = 8192
"""Channels of a cube (13 bits)."""


def split(lowered: Lowered, target: Target, precision: Precision, price: Price) -> Lowered:
    """Replace each convolution that does not run as it is; the buffer is divided at the least `price`.

    Raises
    ------
    CompileError
        No division of the convolution buffer serves.
    """
    splitting = _Splitting(lowered, target, precision, price)
    steps: list[Step] = []
    for step in lowered.steps:
        steps += splitting.steps(step) if isinstance(step, ConvolutionStep) else [step]
    return replace(
        lowered,
        steps=tuple(steps),
        tensors=splitting.tensors,
        parts=splitting.parts,
        derived=splitting.derived,
    )


class _Splitting:
    def __init__(self, lowered: Lowered, target: Target, precision: Precision, price: Price) -> None:
        self._images, self._target, self._half = lowered.images, target, precision is Precision.FP16
        self._price = price
        self._atom = target.feature_atom_bytes // (2 if self._half else 1)
        self.tensors, self.parts, self.derived = dict(lowered.tensors), dict(lowered.parts), dict(lowered.derived)

    def steps(self, step: ConvolutionStep) -> Iterator[Step]:
        """Yield the steps that compute `step`, in order."""
        if not step.transposed:
            yield from self._blocks(step)
            return
        (_, height, width) = self.tensors[step.output].chw
        down, across = (
            phases(step.extent[axis], step.stride[axis], step.pad[axis], size)
            for axis, size in enumerate((height, width))
        )
        for column, horizontal in enumerate(across):
            target = step.output
            if len(across) > 1:
                shape, derived = (height, horizontal.count), Derived((step.output,))
                target = self._temporary(f"{step.output}#{column}", len(step.weights), shape, derived)
            for row, vertical in enumerate(down):
                weights = _tapped(_tapped(step.weights, 2, vertical.taps), 3, horizontal.taps)
                assert step.origin is not None
                origin = replace(step.origin, rows=tuple(vertical.taps), columns=tuple(horizontal.taps))
                yield from self._blocks(
                    replace(
                        step,
                        output=self._rows(target, row, len(down)),
                        weights=weights,
                        stride=(1, 1),
                        pad=(vertical.pad, horizontal.pad),
                        transposed=False,
                        origin=origin,
                    )
                )
            if len(across) > 1:
                yield InterleaveStep(step.layers, target, step.output, column, len(across))

    def _blocks(self, step: ConvolutionStep) -> Iterator[Step]:
        """Take groups together, as many as it takes to begin and end with atoms."""
        outputs, inputs = len(step.weights) // step.group, step.weights.shape[1]
        count = groups_together(inputs, outputs, step.group, self._atom)
        if count == step.group:
            yield from self._fit(replace(step, weights=dense_groups(step.weights, step.group), group=1))
            return
        for first in range(0, step.group, count):
            end = min(first + count, step.group)
            block = self._kernels(step, first * outputs, end * outputs)
            source = self._channels(step.source, first * inputs, end * inputs)
            weights = dense_groups(block.weights, end - first)
            assert block.origin is not None
            origin = replace(block.origin, channels=(first * inputs, end * inputs))
            yield from self._fit(replace(block, source=source, weights=weights, group=1, origin=origin))

    def _fit(self, step: ConvolutionStep) -> Iterator[Step]:
        source, output = self.tensors[step.source], self.tensors[step.output]
        work = work_of(step, source, output, step.source in self._images, 2 if self._half else 1)
        division = divide(self._target, work, self._price)
        if isinstance(division, Shortage):
            raise CompileError(f"layer {step.layers[0]!r}: {division.message}")
        if division.channels < work.channels:
            yield from self._partial_sums(step, division.channels)
        elif division.kernels < work.kernels:
            yield from self._narrow(step, division.kernels)
        else:
            yield step

    def _narrow(self, step: ConvolutionStep, most: int) -> Iterator[Step]:
        """Run `most` kernels at a time, less than an atom, and put their outputs together."""
        size = self.tensors[step.output].chw[1:]
        for first in range(0, len(step.weights), GATHERED_KERNELS):
            block = self._kernels(step, first, min(first + GATHERED_KERNELS, len(step.weights)))
            runs = [(start, min(start + most, len(block.weights))) for start in range(0, len(block.weights), most)]
            # What is joined has no atoms of its own for each run, so it is joined where they are put together.
            plain = replace(block, join=None, relu=False, slopes=None, function=None) if block.join else block
            basis = (step.output,) if block.join is None else (step.output, block.join.tensor)
            whole = f"{block.output}#apart"
            self._temporary(whole, len(runs) * self._atom, size, Derived(basis))
            places: list[int] = []
            for number, (start, end) in enumerate(runs):
                begin = number * self._atom
                places += range(begin, begin + end - start)
                output = self._channels(whole, begin, begin + end - start)
                yield replace(self._kernels(plain, start, end, sliced=False), output=output)
            last = gather(step.layers, whole, block.output, places, len(runs) * self._atom)
            last = replace(last, kernels=_outputs(block))
            if block.join is not None:
                last = replace(last, join=block.join, relu=block.relu, slopes=block.slopes, function=block.function)
            yield last

    def _partial_sums(self, step: ConvolutionStep, channels: int) -> Iterator[Step]:
        """Run `channels` input channels at a time, and add the sums."""
        inputs, size = step.weights.shape[1], self.tensors[step.output].chw[1:]
        chunks = [(first, min(first + channels, inputs)) for first in range(0, inputs, channels)]
        halves = 1 if self._half else 2
        most = MAX_CHANNELS // (len(chunks) * halves) // self._atom * self._atom
        joined = () if step.join is None else (step.join.tensor,)
        basis = (step.output if step.function is None else step.function.source, *joined)
        for first in range(0, len(step.weights), most):
            block = self._kernels(step, first, min(first + most, len(step.weights)))
            kernels = len(block.weights)
            room = round_up(kernels, self._atom)
            whole, total = f"{block.output}#sums", len(chunks) * halves * room
            self._temporary(whole, total, size, Derived(basis, factor=1.0 if self._half else FINE))
            adding = np.zeros((kernels, total, 1, 1), np.float32)
            plain = replace(block, join=None, relu=False, most=None, slopes=None, function=None)
            for number, (start, end) in enumerate(chunks):
                assert plain.origin is not None
                offset = plain.origin.channels[0]
                part = replace(
                    plain,
                    source=self._channels(step.source, start, end),
                    weights=block.weights[:, start:end],
                    bias=block.bias if number == 0 else None,
                    origin=replace(plain.origin, channels=(offset + start, offset + end)),
                )
                begin = number * halves * room
                low = self._channels(whole, begin, begin + kernels)
                if not self._half:
                    high, low = low, self._channels(whole, begin + room, begin + room + kernels)
                    adding[range(kernels), range(begin, begin + kernels)] = COARSE
                    begin += room
                    yield _coarse(part, high)
                    part = replace(part, join=Join(high, "sum", -COARSE))
                adding[range(kernels), range(begin, begin + kernels)] = 1
                yield replace(part, output=low)
            yield replace(
                block,
                source=whole,
                weights=adding,
                bias=None,
                stride=(1, 1),
                pad=(0, 0),
                dilation=(1, 1),
                origin=None,
                kernels=_outputs(block),
                scales=None,
            )

    def _kernels(self, step: ConvolutionStep, first: int, end: int, sliced: bool = True) -> ConvolutionStep:
        """Kernels `first` to `end` of `step`, and, where `sliced`, these channels of its output and what it joins."""
        if (first, end) == (0, len(step.weights)):
            return step
        join, origin = step.join, step.origin
        assert origin is not None
        start = origin.kernels[0]
        return replace(
            step,
            origin=replace(origin, kernels=(start + first, start + end)),
            weights=step.weights[first:end],
            bias=None if step.bias is None else step.bias[first:end],
            scales=None if step.scales is None else step.scales[first:end],
            slopes=None if step.slopes is None else step.slopes[first:end],
            output=self._channels(step.output, first, end) if sliced else step.output,
            join=replace(join, tensor=self._channels(join.tensor, first, end)) if join and sliced else join,
        )

    def _temporary(self, name: str, channels: int, size: Pair, derived: Derived) -> str:
        self.tensors[name] = Tensor(name, (channels, *size), name)
        self.derived[name] = derived
        return name

    def _channels(self, tensor: str, first: int, end: int) -> str:
        channels, *size = self.tensors[tensor].chw
        if (first, end) == (0, channels):
            return tensor
        outer = self.parts.get(tensor, Part(tensor, 0, channels))
        part = replace(outer, first=outer.first + first, end=outer.first + end)
        return self._part(f"{tensor}[{first}:{end}]", (end - first, *size), part)

    def _rows(self, tensor: str, row: int, step: int) -> str:
        if step == 1:
            return tensor
        channels, height, width = self.tensors[tensor].chw
        part = replace(self.parts.get(tensor, Part(tensor, 0, channels)), row=row, step=step)
        return self._part(f"{tensor}[{row}::{step}]", (channels, -(-(height - row) // step), width), part)

    def _part(self, name: str, shape: tuple[int, ...], part: Part) -> str:
        self.tensors[name] = Tensor(name, shape, name)
        self.parts[name] = part
        return name


def _coarse(step: ConvolutionStep, output: str) -> ConvolutionStep:
    """Return `step` with the high half of its result as `output`."""
    assert step.origin is not None
    return replace(
        step,
        output=output,
        weights=step.weights / np.float32(COARSE),
        bias=None if step.bias is None else step.bias / np.float32(COARSE),
        scales=None if step.scales is None else step.scales / np.float32(COARSE),
        origin=replace(step.origin, factor=step.origin.factor / COARSE),
    )


def _outputs(step: ConvolutionStep) -> Pair:
    """Return which outputs of its layer a step makes."""
    assert step.origin is not None
    return step.origin.kernels


def _tapped(weights: Weights, axis: int, taps: range) -> Weights:
    """Take some of the weights along one axis; one zero where there are none."""
    return weights.take(taps, axis=axis) if taps else np.zeros_like(weights.take([0], axis=axis))
