"""Random networks over every layer that the compiler takes, as a strategy of hypothesis.

A network is a chain whose links are layers or blocks of parallel branches, which are chains again; so it has one input
and one output, and shapes fit by construction. Windows, strides and padding are whatever Caffe allows: what a target
cannot run is for `check` to say.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import pytest
from hypothesis import assume
from hypothesis import strategies as st

from nvdla_quant.errors import CompileError, NetworkError
from nvdla_quant.hardware.targets import NV_FULL, TARGETS, Precision, QuantizationMode, Target
from nvdla_quant.network.graph import (
    GELU,
    BatchNorm,
    Clip,
    Dropout,
    Eltwise,
    Flatten,
    HardSigmoid,
    HardSwish,
    Network,
    Operation,
    Pair,
    Power,
    ReLU,
    Reshape,
    Rounding,
    Scale,
    Sigmoid,
    Swish,
    TanH,
    convolution_size,
    deconvolution_size,
    pooling_size,
)
from nvdla_quant.network.moves import Crop, DepthToSpace, SpaceToDepth
from nvdla_quant.support.check import check
from tests.networks.builder import Builder
from tests.verified import Case, case_of, minmax_table, smooth_images

CHANNELS = (1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 20, 24, 31, 32, 33, 40, 48)
"""Around the atoms of nv_small (8) and of nv_full (32, in fp16 16)."""
LARGEST_SIDE = 48
"""A deconvolution makes no larger image."""
LARGEST_CUBE = 20_000
"""Elements of a tensor, for speed."""
MOST_CHANNELS = 130
"""A concatenation has no more channels, for speed."""
MOST_CLASSES = 8
"""Channels of a softmax of several pixels: an atom of nv_small."""
MOST_PIXELS = 50
"""Pixels of one, for speed."""
LARGEST_SIZE = 16.0
"""A product or a square is not of values of this size or more: fp16 would end."""


@dataclass(frozen=True)
class Variant:
    """What to compile for."""

    target: Target
    precision: Precision
    mode: QuantizationMode | None


def variants() -> st.SearchStrategy[Variant]:
    """Every target, precision and quantization mode that the compiler has."""
    int8 = [Variant(target, Precision.INT8, mode) for target in TARGETS.values() for mode in QuantizationMode]
    return st.sampled_from([*int8, Variant(NV_FULL, Precision.FP16, None)])


@dataclass(frozen=True)
class Drawn:
    """A network that hypothesis can print in a few lines."""

    network: Network
    seed: int

    def __repr__(self) -> str:
        """Return a line for each layer, with the shapes of weights for the weights."""
        shapes = self.network.tensors
        lines = [f"data {self.network.only_input.shape}, seed {self.seed}"]
        for layer in self.network.layers:
            values = {item.name: getattr(layer.operation, item.name) for item in fields(layer.operation)}
            told = {name: value.shape if isinstance(value, np.ndarray) else value for name, value in values.items()}
            text = ", ".join(f"{name}={value}" for name, value in told.items())
            lines.append(f"{layer.name} = {layer.kind}({', '.join(layer.inputs)}; {text}) {shapes[layer.name].shape}")
        return "\n  ".join(lines)


@st.composite
def networks(draw: st.DrawFn, longest: int = 6, functions: bool = True) -> Drawn:
    """Networks of up to `longest` links, and what ends them; with those of the table where `functions` are allowed."""
    channels, side = draw(st.sampled_from(CHANNELS)), st.integers(1, 20)
    shape = (channels, draw(side), draw(side))
    seed = draw(st.integers(0, 2**16))
    grower = _Grower(draw, Builder("random", shape, seed=seed), functions)
    last = grower.chain("data", draw(st.integers(1, longest)), grower.links, depth=2)
    grower.end(last)
    return Drawn(grower.builder.build(), seed)


class _Grower:
    """Adds layers as hypothesis draws them.

    Attributes
    ----------
    size : dict[str, float]
        About how large the values of each tensor are; weights divide by it, so values neither vanish nor explode.
    """

    def __init__(self, draw: st.DrawFn, builder: Builder, functions: bool) -> None:
        self.draw, self.builder = draw, builder
        self.size = {"data": 1.0}
        self._count, self._functions = 0, functions
        # Of the same size as their input, so that branches of them can be joined.
        self.inner: list[_Link] = [
            self.same_convolution,
            self.same_pooling,
            self.relu,
            self.slopes,
            self.normalisation,
            self.lrn,
            self.power,
            self.dropout,
            self.clip,
            self.gather,
            self.excitation,
            self.branches,
            *([self.function] if functions else []),
        ]
        # What differs most between networks, and what compilers make most of, is drawn most.
        self.links: list[_Link] = [
            *[self.convolution, self.pooling, self.groups, self.deconvolution] * 2,
            *[self.branches] * 5,
            self.crop,
            self.exchange,
            *self.inner,
        ]

    def named(self, kind: str) -> str:
        self._count += 1
        return f"{kind}{self._count}"

    def written(self, name: str, size: float) -> str:
        self.size[name] = size
        return name

    def pair(self, low: int, high: int) -> Pair:
        """Two numbers, more often than not the same."""
        first = self.draw(st.integers(low, high))
        return first, self.draw(st.one_of(st.just(first), st.integers(low, high)))

    def chain(self, source: str, length: int, links: "list[_Link]", depth: int) -> str:
        for _ in range(length):
            source = self.draw(st.sampled_from(links))(source, depth)
        return source

    # Links: each takes a tensor and how deep blocks may still nest, and returns the tensor that it wrote.

    def convolution(self, source: str, depth: int) -> str:
        return self.convolved(source, self.draw(st.sampled_from(CHANNELS)), 1)

    def groups(self, source: str, depth: int) -> str:
        """Grouped or depthwise."""
        channels = self.builder.channels(source)
        group = self.draw(st.sampled_from([n for n in range(1, channels + 1) if channels % n == 0]))
        return self.convolved(source, group * self.draw(st.integers(1, max(1, 40 // group))), group)

    def convolved(self, source: str, outputs: int, group: int) -> str:
        _, *sides = self.builder.chw(source)
        kernel, dilation, stride = self.pair(1, 5), self.pair(1, 3), self.pair(1, 3)
        extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        pad = self.pair(0, max(extent) - 1)
        far = self.far(pad, 0, max(extent) - 1)
        made = [convolution_size(*axis) for axis in zip(sides, kernel, stride, pad, dilation, far, strict=True)]
        if min(made) < 1:
            kernel, dilation, pad, far, made = (1, 1), (1, 1), (0, 0), (0, 0), sides
        if self.too_large(outputs, made):
            outputs = group
        bias = self.draw(st.booleans())
        name = self.named("conv")
        self.builder.conv(
            name,
            source,
            outputs,
            kernel,
            stride,
            pad=pad,
            far=far,
            group=group,
            dilation=dilation,
            bias=bias,
            gain=self.gain(source),
        )
        return self.written(name, 1.4)

    def same_convolution(self, source: str, depth: int) -> str:
        """Of stride 1, padded so that the size stays."""
        kernel = self.draw(st.sampled_from([1, 3, 5]))
        return self.convolved_to(source, self.draw(st.sampled_from(CHANNELS)), kernel)

    def convolved_to(self, source: str, outputs: int, kernel: int = 1) -> str:
        name = self.builder.conv(self.named("conv"), source, outputs, kernel, gain=self.gain(source))
        return self.written(name, 1.4)

    def deconvolution(self, source: str, depth: int) -> str:
        channels, *sides = self.builder.chw(source)
        kernel, stride = self.pair(1, 4), self.pair(1, 3)
        pad = self.pair(0, min(kernel) - 1)
        far = self.far(pad, 1 - min(stride), min(kernel) - 1)
        depthwise = self.draw(st.booleans()) and channels <= 40
        outputs = channels if depthwise else self.draw(st.sampled_from([n for n in CHANNELS if n <= 24]))
        made = [deconvolution_size(*axis) for axis in zip(sides, kernel, stride, pad, (1, 1), far, strict=True)]
        if min(made) < 1 or max(made) > LARGEST_SIDE or self.too_large(outputs, made):
            return self.relu(source, depth)
        name, group, bias = self.named("deconv"), channels if depthwise else 1, self.draw(st.booleans())
        self.builder.deconv(
            name, source, outputs, kernel, stride, pad=pad, far=far, group=group, bias=bias, gain=self.gain(source)
        )
        return self.written(name, 1.4)

    def pooling(self, source: str, depth: int) -> str:
        """Also with windows that leave the image, and larger than the hardware's."""
        _, *sides = self.builder.chw(source)
        kernel = self.draw(st.one_of(st.just((sides[0], sides[1])), st.just((3, 3)), st.just((2, 2)), st.just((9, 9))))
        if self.draw(st.booleans()):
            kernel = self.pair(1, 6)
        pad = self.pair(0, min(kernel) - 1)
        far = self.far(pad, 0, min(kernel) - 1)
        if any(size + near + after < k for size, k, near, after in zip(sides, kernel, pad, far, strict=True)):
            kernel, pad, far = (1, 1), (0, 0), (0, 0)
        stride = self.pair(1, max(1, min(*kernel, 8)))
        rounding: Rounding = self.draw(st.sampled_from(["up", "down"]))
        axes = zip(sides, kernel, stride, pad, (rounding,) * 2, far, strict=True)
        # A last window that lies in the padding altogether has no value.
        if any((pooling_size(*axis) - 1) * axis[2] - axis[3] >= axis[0] for axis in axes):
            stride, far = (1, 1), pad
        area: Literal["padded", "image"] = self.draw(st.sampled_from(["padded", "image"]))
        name = self.named("pool")
        self.builder.pool(name, source, self.method(), kernel, stride, pad, rounding=rounding, far=far, area=area)
        return self.written(name, self.size[source])

    def same_pooling(self, source: str, depth: int) -> str:
        name = self.builder.pool(self.named("pool"), source, self.method(), 3, 1, 1)
        return self.written(name, self.size[source])

    def method(self) -> Literal["max", "average"]:
        return self.draw(st.sampled_from(["max", "average"]))

    def far(self, near: Pair, low: int, high: int) -> Pair:
        """Padding on the far sides: more often than not that of the near ones."""
        return self.draw(st.one_of(st.just(near), st.tuples(st.integers(low, high), st.integers(low, high))))

    def relu(self, source: str, depth: int) -> str:
        return self.written(self.builder.relu(self.named("relu"), source), self.size[source])

    def slopes(self, source: str, depth: int) -> str:
        """Leaky ReLU or PReLU."""
        name = self.named("slope")
        if self.draw(st.booleans()):
            return self.written(self.builder.prelu(name, source), self.size[source])
        slope = self.draw(st.sampled_from([0.01, 0.1, 0.25]))
        return self.written(self.builder.relu(name, source, slope), self.size[source])

    def normalisation(self, source: str, depth: int) -> str:
        """BatchNorm, Scale or both."""
        channels, builder = self.builder.channels(source), self.builder
        kinds = self.draw(st.sampled_from(["BatchNorm", "Scale", "both"]))
        if kinds == "both":
            return self.written(builder.norm(self.named("norm"), source), 1.2 * self.size[source])
        if kinds == "BatchNorm":
            normal = BatchNorm(builder.normal((channels,), 0.1), builder.uniform(channels, 0.7, 1.3), 1e-5)
            return self.written(builder.add(self.named("bn"), normal, source), 1.2 * self.size[source])
        beta = builder.normal((channels,), 0.1) if self.draw(st.booleans()) else None
        scale = Scale(builder.uniform(channels, -1.2, 1.2), beta)
        return self.written(builder.add(self.named("scale"), scale, source), self.size[source])

    def lrn(self, source: str, depth: int) -> str:
        size, alpha = self.draw(st.sampled_from([3, 5, 7, 9])), self.draw(st.sampled_from([1e-4, 1e-2, 0.5]))
        return self.written(self.builder.lrn(self.named("lrn"), source, size, alpha), self.size[source])

    def power(self, source: str, depth: int) -> str:
        """A factor and an offset, or a square of that, which takes a table or the CPU."""
        size = self.size[source]
        power = self.draw(st.sampled_from([1.0, 1.0, 2.0])) if size < LARGEST_SIZE else 1.0
        scale, shift = self.draw(st.sampled_from([0.5, 1.0, -0.75])), self.draw(st.sampled_from([0.0, 0.25, -0.5]))
        name = self.builder.add(self.named("power"), Power(power, scale, shift), source)
        return self.written(name, (abs(scale) * size + abs(shift)) ** power)

    def function(self, source: str, depth: int) -> str:
        bounded = [Sigmoid(), TanH(), HardSigmoid(), HardSigmoid(0.16666667)]
        operation = self.draw(st.sampled_from([*bounded, HardSwish(), Swish(), GELU(), GELU(True)]))
        size = 0.7 if operation in bounded else self.size[source]
        return self.written(self.builder.add(self.named("function"), operation, source), size)

    def clip(self, source: str, depth: int) -> str:
        """Bounds within what the values are, or beyond."""
        low, high = self.draw(
            st.sampled_from([(0.0, 1.0), (0.0, 0.5), (0.0, 9.0), (-0.7, 0.9), (-0.3, None), (None, 0.4)])
        )
        size = self.size[source]
        clip = Clip(None if low is None else low * size, None if high is None else high * size)
        return self.written(self.builder.add(self.named("clip"), clip, source), size)

    def gather(self, source: str, depth: int) -> str:
        """A part of the channels, all of them shuffled, or any."""
        count = self.builder.channels(source)
        first = self.draw(st.integers(0, count - 1))
        groups = self.draw(st.sampled_from([n for n in range(1, count + 1) if count % n == 0]))
        channels = self.draw(
            st.one_of(
                st.just(tuple(range(first, count))),
                st.just(tuple(range(first + 1))),
                st.just(tuple(np.arange(count).reshape(groups, -1).T.ravel().tolist())),
                st.lists(st.integers(0, count - 1), min_size=1, max_size=8).map(tuple),
            )
        )
        return self.written(self.builder.gather(self.named("gather"), source, channels), self.size[source])

    def crop(self, source: str, depth: int) -> str:
        """A rectangle, down to one pixel."""
        _, height, width = self.builder.chw(source)
        (top, left), name = (self.draw(st.integers(0, size - 1)) for size in (height, width)), self.named("crop")
        rows, columns = self.draw(st.integers(1, height - top)), self.draw(st.integers(1, width - left))
        return self.written(self.builder.add(name, Crop((top, rows), (left, columns)), source), self.size[source])

    def exchange(self, source: str, depth: int) -> str:
        """Blocks of pixels as channels, or channels as blocks, where the sizes allow one."""
        channels, height, width = self.builder.chw(source)
        block = self.pair(1, 3)
        places = block[0] * block[1]
        fits: list[type[SpaceToDepth] | type[DepthToSpace]] = []
        if not (height % block[0] or width % block[1] or channels * places > MOST_CHANNELS):
            fits.append(SpaceToDepth)
        if not channels % places and max(height * block[0], width * block[1]) <= LARGEST_SIDE:
            fits.append(DepthToSpace)
        if not fits:
            return self.relu(source, depth)
        kind = self.draw(st.sampled_from(fits))
        order = self.draw(st.permutations(range(channels * places if kind is SpaceToDepth else channels)))
        name = self.builder.add(self.named("blocks"), kind(block, tuple(order)), source)
        return self.written(name, self.size[source])

    def excitation(self, source: str, depth: int) -> str:
        """All pixels times a gate, which an average of them makes."""
        gates: list[Operation] = [Clip(0.0, 1.0), *([HardSigmoid(), Sigmoid()] if self._functions else [])]
        inner, gate = self.draw(st.sampled_from(CHANNELS)), self.draw(st.sampled_from(gates))
        name = self.builder.excited(self.named("excited"), source, inner, ReLU(), gate, self.gain(source))
        return self.written(name, self.size[source])

    def dropout(self, source: str, depth: int) -> str:
        return self.written(self.builder.add(self.named("drop"), Dropout(), source), self.size[source])

    def branches(self, source: str, depth: int) -> str:
        """Two to four chains from one tensor, joined: the shorter may be the tensor itself."""
        if depth == 0:
            return self.same_convolution(source, depth)
        count = self.draw(st.integers(2, 4))
        ends = [self.chain(source, self.draw(st.integers(0, 2)), self.inner, depth - 1) for _ in range(count)]
        return self.concat(ends) if self.draw(st.booleans()) else self.eltwise(ends)

    def concat(self, ends: list[str]) -> str:
        if sum(self.builder.channels(end) for end in ends) > MOST_CHANNELS:
            return self.eltwise(ends)
        return self.written(self.builder.concat(self.named("concat"), *ends), max(self.size[end] for end in ends))

    def eltwise(self, ends: list[str]) -> str:
        channels = self.builder.channels(ends[0])
        ends = [end if self.builder.channels(end) == channels else self.convolved_to(end, channels) for end in ends]
        sizes = [self.size[end] for end in ends]
        product = 1.0
        for size in sizes:
            product *= size
        kinds: list[Literal["sum", "max", "min", "prod"]] = ["sum", "max", "min"]
        if product < LARGEST_SIZE:
            kinds.append("prod")
        kind = self.draw(st.sampled_from(kinds))
        coefficients: tuple[float, ...] = ()
        # Of one tensor, coefficients may come to 0, and a tensor of zeros has no scale.
        if kind == "sum" and len(set(ends)) == len(ends) and self.draw(st.booleans()):
            coefficients = tuple(self.draw(st.sampled_from([1.0, -1.0, 0.5, -1.25, 2.0])) for _ in ends)
        name = self.builder.eltwise(self.named(kind), kind, *ends, coefficients=coefficients)
        return self.written(name, {"sum": 1.5 * max(sizes), "prod": product}.get(kind, max(sizes)))

    def end(self, source: str) -> None:
        """Scores, with a softmax or without; or a last convolution, whose output is an image."""
        kind = self.draw(st.sampled_from(["image", "scores", "average", "flattened"]))
        if kind == "image":
            last = self.convolved_to(source, self.draw(st.sampled_from([1, 2, 5, 10])))
            channels, height, width = self.builder.chw(last)
            # Channels of one pixel fit an atom of any target, so that each pixel may have a softmax.
            if channels <= MOST_CLASSES and height * width <= MOST_PIXELS and self.draw(st.booleans()):
                self.builder.softmax(last)
            return
        if kind == "average":
            _, *sides = self.builder.chw(source)
            last = self.convolved_to(source, 10)
            last = self.builder.pool(self.named("global"), last, "average", (sides[0], sides[1]))
        else:
            self.size.setdefault(source, 1.0)
            last, gain = source, self.gain(source)
            if kind == "flattened":
                last = self.builder.add(self.named("flat"), self.draw(self.views(last)), last)
            if self.draw(st.booleans()):
                last = self.builder.fc(self.named("fc"), last, self.draw(st.sampled_from(CHANNELS)), gain=gain)
                last, gain = self.builder.relu(self.named("relu"), last), 1.0
            last = self.builder.fc(self.named("fc"), last, 10, gain=gain)
        if self.draw(st.booleans()):
            self.builder.softmax(last)

    def views(self, source: str) -> st.SearchStrategy[Flatten | Reshape]:
        channels, height, width = self.builder.chw(source)
        return st.sampled_from(
            [Flatten(), Reshape((channels * height * width, 1, 1)), Reshape((channels, height * width, 1))]
        )

    def gain(self, source: str) -> float:
        return 1 / max(self.size[source], 0.1)

    def too_large(self, channels: int, sides: list[int]) -> bool:
        return channels * sides[0] * sides[1] > LARGEST_CUBE


_Link = Callable[[str, int], str]


def drawn_case(drawn: Drawn, variant: Variant, images: int = 4) -> Case | None:
    """The network compiled for the variant, or None where `check` says that the target cannot run it.

    A network whose table has no scale for a tensor, since all its values are zero or beyond float32, is no example, nor
    one of which a tensor has next to nothing of the values before it: ratios of scales have 15 bits before the point.
    """
    network = drawn.network
    shown = smooth_images(network.only_input.chw, images)
    try:
        table = minmax_table(network, shown)
    except NetworkError as error:
        assume("so that it has no scale" not in str(error) and "values are not finite" not in str(error))
        raise
    if any(item.severity == "error" for item in check(network, variant.target, variant.precision)):
        with pytest.raises(CompileError, match="cannot be compiled for"):
            case_of(network, table, shown, variant.target, variant.precision, variant.mode)
        return None
    try:
        return case_of(network, table, shown, variant.target, variant.precision, variant.mode)
    except CompileError as error:
        assume("times finer than inputs" not in str(error))
        raise


def has_long_product(network: Network) -> bool:
    """Whether it multiplies more than two tensors: what is between keeps few steps, as docs/compiler.md says."""
    operations = ((layer.operation, len(layer.inputs)) for layer in network.layers)
    return any(isinstance(item, Eltwise) and item.operation == "prod" and count > 2 for item, count in operations)
