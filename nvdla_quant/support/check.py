"""What a target can run, and why not: findings by rule, before anything is compiled."""

from collections.abc import Callable, Iterator, Sequence

from nvdla_quant.hardware.cbuf import (
    IMAGE_CHANNELS,
    MAX_FAR_PAD,
    MAX_PAD,
    Shortage,
    Work,
    divide,
    round_up,
)
from nvdla_quant.hardware.targets import (
    COMPILED_PRECISIONS,
    MAX_POOLING_WINDOW,
    TARGETS,
    Precision,
    QuantizationMode,
    Target,
)
from nvdla_quant.network.findings import Finding
from nvdla_quant.network.graph import (
    LRN,
    TABULATED,
    Concat,
    Convolution,
    Deconvolution,
    HardSigmoid,
    InnerProduct,
    Layer,
    Network,
    Pooling,
    Power,
    Softmax,
)
from nvdla_quant.network.passes import for_hardware
from nvdla_quant.network.views import VIEWS, readers, viewed
from nvdla_quant.support.rewrites import groups_together, phases

MAX_SIZE = 8192
"""Width, height, channels and kernels: 13-bit registers that hold the size minus one (NVDLA_CDMA_D_DATAIN_SIZE_*,
NVDLA_CSC_D_WEIGHT_SIZE_EXT_1, NVDLA_PDP_D_DATA_CUBE_IN_WIDTH)."""
MAX_KERNEL = 32
"""Kernel height and width, and dilation: 5 bits, minus one (NVDLA_CSC_D_WEIGHT_SIZE_EXT_0, _DILATION_EXT)."""
MAX_STRIDE = 8
"""Convolution strides: 3 bits, minus one (NVDLA_CDMA_D_CONV_STRIDE). Pooling strides: the firmware's check (pdp.c)."""
MAX_SOFTMAX_PIXELS = 1 << 14
"""Pixels of a softmax, 128 x 128: each is an operation of the runtime, with a descriptor of its own (a task has 65,535
at most: nvdla/sw ``umd/core/src/runtime/Emulator.cpp`` ``processTask`` counts them in 16 bits)."""
END_BEFORE_SOFTMAX = "end the network before it: the largest class of each pixel is the same"
NORMALISATION_SIZES = (3, 5, 7, 9)
"""Channels that the CDP sums over: NVDLA_CDP_D_LRN_CFG has 2 bits (kmd/firmware/cdp.c ``map_local_size``)."""


def check(
    network: Network, target: Target, precision: Precision | str, mode: QuantizationMode | str | None = None
) -> tuple[Finding, ...]:
    """Find what keeps `network` from running on `target`, in network order.

    What the compiler rewrites by itself (`passes.for_hardware`) counts as it is after that.

    Parameters
    ----------
    network : Network
        The network; its weights count by their shape alone.
    target, precision : Target, Precision
        What it is to be compiled for.
    mode : QuantizationMode, optional
        Both quantization modes run the same operations; no rule depends on it.
    """
    precision = Precision(precision)
    return (*_precision(target, precision), *_layers(for_hardware(network), target, precision))


def runs_from_table(operation: Power, target: Target, precision: Precision) -> bool:
    """Whether a power other than 1 runs on the accelerator, from the SDP's table, and not on the CPU."""
    return operation.power != 1 and target.has_lut and precision is Precision.INT8


def _precision(target: Target, precision: Precision) -> Iterator[Finding]:
    if precision not in COMPILED_PRECISIONS:
        yield Finding("", "precision", "error", f"no compiler makes {precision} loadables", "compile for int8 or fp16")
    elif precision not in target.precisions:
        able = ", ".join(name for name, other in TARGETS.items() if precision in other.precisions)
        message = f"{target.name} has no {precision} multipliers; targets that have: {able}"
        yield Finding("", "precision", "error", message, "compile for int8" if precision is Precision.FP16 else "")


def _layers(network: Network, target: Target, precision: Precision) -> Iterator[Finding]:
    images = image_inputs(network)
    for layer in network.layers:
        operation = layer.operation
        if isinstance(operation, VIEWS):
            continue
        if rule := _RULES.get(type(operation)):
            yield from rule(layer, network, target, precision)
        if isinstance(operation, Convolution | InnerProduct):
            yield from _convolution_core(layer, network, target, precision, viewed(network, layer.inputs[0]) in images)
        else:
            yield from _reshaped(layer, network)
        names = (*(viewed(network, name) for name in layer.inputs), layer.name)
        size = max(max(network.tensors[name].chw) for name in names)
        yield from _limited(layer, "size", [("channels, height or width", size, MAX_SIZE)])


def image_inputs(network: Network) -> frozenset[str]:
    """Network inputs that the hardware can read as images: up to four channels, read by convolutions alone.

    A kernel's row of pixels becomes one vector of channels, and its height may be stretched by the dilation.
    """
    return frozenset(tensor.name for tensor in network.inputs if _is_image(network, tensor.name))


def _is_image(network: Network, name: str) -> bool:
    shape = network.tensors[name].shape
    if len(shape) != 3 or shape[0] > IMAGE_CHANNELS:
        return False
    layers = list(readers(network, name))
    return bool(layers) and all(
        isinstance(layer.operation, Convolution | InnerProduct)
        and _extent(layer, network)[0] <= MAX_KERNEL
        and getattr(layer.operation, "group", 1) == 1
        for layer in layers
    )


def _kernel(layer: Layer, network: Network) -> tuple[int, int, int, int]:
    """Return (outputs, inputs, height, width) of the kernels of a convolution or inner product."""
    if isinstance(layer.operation, InnerProduct):
        return (layer.operation.weights.shape[0], *network.tensors[viewed(network, layer.inputs[0])].chw)
    assert isinstance(layer.operation, Convolution)
    outputs, inputs, height, width = layer.operation.weights.shape
    return outputs, inputs, height, width


def _extent(layer: Layer, network: Network) -> tuple[int, int]:
    """Rows and columns that one kernel spans."""
    _, _, height, width = _kernel(layer, network)
    dilation = layer.operation.dilation if isinstance(layer.operation, Convolution) else (1, 1)
    return (height - 1) * dilation[0] + 1, (width - 1) * dilation[1] + 1


def _reshaped(layer: Layer, network: Network) -> Iterator[Finding]:
    for name in layer.inputs:
        source = network.tensors[viewed(network, name)]
        if source.chw != network.tensors[name].chw:
            message = (
                f"reads {name!r} of shape {network.tensors[name].shape}, a view of {source.name!r} of shape "
                f"{source.shape}; the hardware cannot reorder it"
            )
            yield Finding(layer.name, "reshape", "error", message, "only InnerProduct can read a flattened cube")


def _convolution_core(
    layer: Layer, network: Network, target: Target, precision: Precision, image: bool
) -> Iterator[Finding]:
    """Limits of the convolution core."""
    operation = layer.operation
    if isinstance(operation, Convolution):
        yield from _reshaped(layer, network)
    outputs, channels, *_ = _kernel(layer, network)
    extent = _extent(layer, network)
    stride, pad, dilation, group = (1, 1), (0, 0), (1, 1), 1
    if isinstance(operation, Convolution):
        stride, pad, dilation, group = operation.stride, operation.pad, operation.dilation, operation.group
    kernel = _kernel(layer, network)[2:]
    if image:
        kernel, dilation = extent, (1, 1)
    together = groups_together(channels, outputs // group, group, _atom(target, precision))
    if together > 1:
        message = f"its {group} groups run {together} at a time, with zeros between: {together} times the weights"
        yield Finding(layer.name, "group", "warning", message)
    work = Work(
        kernels=outputs // group * together,
        channels=IMAGE_CHANNELS if image else channels * together,
        kernel=kernel,
        extent=extent,
        stride=stride,
        pad=pad,
        source=network.tensors[viewed(network, layer.inputs[0])].chw[1:],
        output=network.tensors[layer.name].chw[1:],
        element_bytes=_element_bytes(precision),
        image=image,
    )
    yield from _fits(layer, work, dilation, target)


PIXEL_RULE = (
    "a result of one pixel with more channels than an atom would be put into a larger tensor, and of one pixel the SDP "
    "takes all atoms one behind the other, whatever the tensor"
)


def _deconvolution(layer: Layer, network: Network, target: Target, precision: Precision) -> Iterator[Finding]:
    """Look at each phase of the stride, which is a convolution."""
    operation = layer.operation
    assert isinstance(operation, Deconvolution)
    inputs, outputs, *kernel = operation.weights.shape
    source, output = network.tensors[viewed(network, layer.inputs[0])].chw, network.tensors[layer.name].chw
    inputs //= operation.group
    together = groups_together(inputs, outputs, operation.group, _atom(target, precision))
    axes = [
        phases((size - 1) * dilation + 1, stride, pad, count)
        for size, dilation, stride, pad, count in zip(
            kernel, operation.dilation, operation.stride, operation.pad, output[1:], strict=True
        )
    ]
    found: dict[Finding, None] = {}
    atom, (rows, columns) = _atom(target, precision), ([phase.count for phase in axis] for axis in axes)
    written, copied = _lone_pixels(rows, columns)
    if (written and outputs * together > atom) or (copied and outputs * operation.group > atom):
        found[Finding(layer.name, "pixel", "error", PIXEL_RULE, "a larger input, or fewer outputs")] = None
    for down in axes[0]:
        for across in axes[1]:
            taps = max(len(down.taps), 1), max(len(across.taps), 1)
            work = Work(
                kernels=outputs * together,
                channels=inputs * together,
                kernel=taps,
                extent=taps,
                stride=(1, 1),
                pad=(down.pad, across.pad),
                source=source[1:],
                output=(down.count, across.count),
                element_bytes=_element_bytes(precision),
            )
            found.update(dict.fromkeys(_fits(layer, work, (1, 1), target)))
    yield from found


def _lone_pixels(rows: Sequence[int], columns: Sequence[int]) -> tuple[bool, bool]:
    """Return whether one pixel of several is written at a time, and whether one is copied at a time.

    The phases of a deconvolution have so many rows and columns each. One is written into rows of the output, or, where
    there are several columns of phases, of a tensor for that column, which is then copied into the output: whole where
    all columns are alike, else row by row.
    """
    height, alike = sum(rows), len(set(columns)) == 1
    written = height > 1 and 1 in rows and 1 in columns
    copied = len(columns) > 1 and 1 in columns and (not alike or height == 1)
    return written, copied


def _fits(layer: Layer, work: Work, dilation: tuple[int, int], target: Target) -> Iterator[Finding]:
    """Compare with the registers of the convolution core, and with its buffer."""
    vector = work.channels * (work.kernel[1] if work.image else 1)
    before, after = work.padding
    limits = [
        ("kernel", max(work.kernel[0], 1 if work.image else work.kernel[1]), MAX_KERNEL),
        ("stride", max(work.stride), MAX_STRIDE),
        ("padding", max(*work.pad, *before), MAX_PAD),
        ("padding on the right or below", max(after), MAX_FAR_PAD),
        ("dilation", max(dilation), MAX_KERNEL),
        ("channels of one kernel row", vector, MAX_SIZE),
    ]
    over = list(_limited(layer, "convolution-limit", limits))
    yield from over
    if not over and isinstance(shortage := divide(target, work), Shortage):
        yield Finding(layer.name, "cbuf", "error", shortage.message, "a smaller kernel, a narrower input")


def _element_bytes(precision: Precision) -> int:
    return 2 if precision is Precision.FP16 else 1


def _atom(target: Target, precision: Precision) -> int:
    """Channels of an atom."""
    return target.feature_atom_bytes // _element_bytes(precision)


def _concat(layer: Layer, network: Network, target: Target, precision: Precision) -> Iterator[Finding]:
    """Look at where inputs end: each is written in atoms of its own, from which a convolution may have to gather."""
    atom = _atom(target, precision)
    counts = [network.tensors[name].chw[0] for name in layer.inputs]
    if any(count % atom for count in counts[:-1]):
        apart = sum(round_up(count, atom) for count in counts)
        yield from _limited(layer, "concat-atom", [("channels, each input filled up to atoms,", apart, MAX_SIZE)])


def _limited(layer: Layer, rule: str, limits: Sequence[tuple[str, int, int]], rewrite: str = "") -> Iterator[Finding]:
    for what, found, limit in limits:
        if found > limit:
            yield Finding(layer.name, rule, "error", f"{what} is {found}, the limit is {limit}", rewrite)


def _pooling(layer: Layer, network: Network, target: Target, precision: Precision) -> Iterator[Finding]:
    operation = layer.operation
    assert isinstance(operation, Pooling)
    if not target.has_pdp:
        message = f"{target.name} has no PDP, the unit that pools"
        yield Finding(layer.name, "no-pooling", "error", message, "convolutions with strides")
    sizes = [
        ("window", max(operation.kernel), MAX_POOLING_WINDOW),
        ("stride", max(operation.stride), MAX_STRIDE),
    ]
    yield from _limited(layer, "pooling-limit", sizes, "windows up to 32 that lie inside of the padded image")


def _table(layer: Layer, network: Network, target: Target, precision: Precision) -> Iterator[Finding]:
    if not target.has_lut:
        able = ", ".join(name for name, other in TARGETS.items() if other.has_lut)
        message = f"{target.name}'s SDP has no look-up table; targets that have one: {able}"
        yield Finding(layer.name, "no-table", "error", message, "train with ReLU or PReLU")
    if isinstance(layer.operation, HardSigmoid) and layer.operation.alpha == 0:
        yield Finding(layer.name, "function", "error", "alpha is 0: it is a constant", "leave the layer out")


def _power(layer: Layer, network: Network, target: Target, precision: Precision) -> Iterator[Finding]:
    operation = layer.operation
    assert isinstance(operation, Power)
    if operation.power != 1 and not runs_from_table(operation, target, precision) and precision is Precision.INT8:
        message = "runs on the CPU, whose runtime rounds toward zero: up to one step lower than it should be"
        yield Finding(layer.name, "power-rounding", "warning", message)


def _normalisation(layer: Layer, network: Network, target: Target, precision: Precision) -> Iterator[Finding]:
    operation = layer.operation
    assert isinstance(operation, LRN)
    if not target.has_cdp:
        message = f"{target.name} has no CDP, the unit that normalises over channels"
        yield Finding(layer.name, "no-normalisation", "error", message, "train with BatchNorm")
    if operation.local_size not in NORMALISATION_SIZES:
        message = f"local_size {operation.local_size}, expected one of {', '.join(map(str, NORMALISATION_SIZES))}"
        yield Finding(layer.name, "lrn", "error", message)
    if operation.k <= 0 or operation.alpha < 0:
        message = f"k {operation.k}, alpha {operation.alpha}; expected more than 0, and 0 or more"
        yield Finding(layer.name, "lrn", "error", message)


def _softmax(layer: Layer, network: Network, target: Target, precision: Precision) -> Iterator[Finding]:
    channels, height, width = network.tensors[layer.inputs[0]].chw
    pixels, atom = height * width, _atom(target, precision)
    message = ""
    if pixels > MAX_SOFTMAX_PIXELS:
        message = f"{height} x {width} pixels are as many operations on the CPU, the limit is {MAX_SOFTMAX_PIXELS}"
    elif pixels > 1 and channels > atom:
        message = (
            f"{channels} channels of {height} x {width} pixels; the runtime takes the channels of a pixel as they lie "
            f"in memory, and on {target.name} only {atom} of them in {precision} lie one behind the other"
        )
    if message:
        yield Finding(layer.name, "softmax-size", "error", message, END_BEFORE_SOFTMAX)


_RULES: dict[type, Callable[[Layer, Network, Target, Precision], Iterator[Finding]]] = {
    Pooling: _pooling,
    Softmax: _softmax,
    Concat: _concat,
    Deconvolution: _deconvolution,
    **dict.fromkeys(TABULATED, _table),
    Power: _power,
    LRN: _normalisation,
}
"""Rules of some layer types; those of the convolution core stand by themselves, and others have none of their own."""
