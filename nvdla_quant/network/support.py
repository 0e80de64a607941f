"""What a target can run, and why not: findings by rule, before anything is compiled."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from nvdla_quant.cbuf import IMAGE_CHANNELS, Shortage, divide, feature_entries, image_entries
from nvdla_quant.hardware import COMPILED_PRECISIONS, MAX_POOLING_WINDOW, TARGETS, Precision, QuantizationMode, Target
from nvdla_quant.network.graph import (
    BatchNorm,
    Concat,
    Convolution,
    Eltwise,
    InnerProduct,
    Layer,
    Network,
    Pooling,
    Power,
    ReLU,
    Scale,
    Softmax,
)
from nvdla_quant.network.passes import for_hardware
from nvdla_quant.network.views import VIEWS, readers, viewed

MAX_SIZE = 8192
"""Width, height, channels and kernels: 13-bit registers that hold the size minus one (NVDLA_CDMA_D_DATAIN_SIZE_*,
NVDLA_CSC_D_WEIGHT_SIZE_EXT_1, NVDLA_PDP_D_DATA_CUBE_IN_WIDTH)."""
MAX_KERNEL = 32
"""Kernel height and width, and dilation: 5 bits, minus one (NVDLA_CSC_D_WEIGHT_SIZE_EXT_0, _DILATION_EXT)."""
MAX_STRIDE = 8
"""Convolution strides: 3 bits, minus one (NVDLA_CDMA_D_CONV_STRIDE). Pooling strides: the firmware's check (pdp.c)."""
MAX_PAD = 31
"""Padding on the left and above: 5 bits (NVDLA_CDMA_D_ZERO_PADDING)."""
MAX_KERNEL_BYTES = 1 << 18
"""Bytes of one kernel: 18 bits, minus one (NVDLA_CDMA_D_WEIGHT_SIZE_0)."""
MAX_ENTRIES = 1 << 12
"""CBUF entries of one input row: 12 bits (NVDLA_CDMA_D_ENTRY_PER_SLICE)."""


@dataclass(frozen=True)
class Finding:
    """Something that a target cannot run (``error``), or runs with another result (``warning``).

    Attributes
    ----------
    layer : str
        Name of the layer; empty where the whole network is meant.
    rule : str
        Short name of the rule.
    severity : str
        ``error`` or ``warning``; the compiler refuses a network with an error.
    message : str
        What is found, what the limit is, with numbers.
    rewrite : str
        What would help; empty where nothing is known to.
    """

    layer: str
    rule: str
    severity: Literal["error", "warning"]
    message: str
    rewrite: str = ""


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
    grouped = (finding for layer in network.layers for finding in _groups(layer))
    return (*_precision(target, precision), *grouped, *_layers(for_hardware(network), target, precision))


def findings_by_precision(network: Network, target: Target, precisions: Iterable[str]) -> dict[str, object]:
    """Return the findings for each of `precisions` as JSON holds them: ``{precision: {"findings": [...]}}``."""
    return {
        str(precision): {"findings": [asdict(finding) for finding in check(network, target, precision)]}
        for precision in precisions
    }


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
        if rule := _RULES.get(type(layer.operation)):
            yield from rule(layer, network)
        elif not isinstance(layer.operation, VIEWS):
            message = f"the compiler cannot run {layer.kind}"
            yield Finding(layer.name, "layer-type", "error", message, _ADVICE.get(layer.kind, ""))
        if isinstance(layer.operation, Convolution | InnerProduct):
            yield from _convolution_core(layer, network, target, precision, viewed(network, layer.inputs[0]) in images)
        elif not isinstance(layer.operation, VIEWS):
            yield from _reshaped(layer, network)
        if isinstance(layer.operation, Concat):
            yield from _concat(layer, network, target, precision)
        if not isinstance(layer.operation, VIEWS):
            names = (*(viewed(network, name) for name in layer.inputs), layer.name)
            size = max(max(network.tensors[name].chw) for name in names)
            yield from _limited(layer, "size", [("channels, height or width", size, MAX_SIZE)])


_ADVICE = {"PReLU": "train with ReLU", "Sigmoid": "train with ReLU", "TanH": "train with ReLU"}


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
    if isinstance(layer.operation, Convolution):
        yield from _reshaped(layer, network)
    outputs, channels, kernel_height, kernel_width = _kernel(layer, network)
    _, height, width = network.tensors[viewed(network, layer.inputs[0])].chw
    operation = layer.operation
    plain = isinstance(operation, InnerProduct)
    stride, pad, dilation = ((1, 1), (0, 0), (1, 1)) if plain else _geometry(operation)
    if image:
        kernel_height, kernel_width = _extent(layer, network)
        dilation, channels = (1, 1), IMAGE_CHANNELS
    element_bytes = 2 if precision is Precision.FP16 else 1
    kernel_bytes = channels * kernel_height * kernel_width * element_bytes
    vector = channels * kernel_width if image else channels
    limits = [
        ("kernel", max(kernel_height, 1 if image else kernel_width), MAX_KERNEL),
        ("stride", max(stride), MAX_STRIDE),
        ("padding", max(pad), MAX_PAD),
        ("dilation", max(dilation), MAX_KERNEL),
        ("channels of one kernel row", vector, MAX_SIZE),
        ("bytes of one kernel", kernel_bytes, MAX_KERNEL_BYTES),
    ]
    yield from _limited(layer, "convolution-limit", limits)
    if image:
        entries = image_entries(target, width, 2 * pad[1], element_bytes)
    else:
        entries = feature_entries(target, channels, width, element_bytes)
    if entries > MAX_ENTRIES:
        yield from _limited(layer, "convolution-limit", [("CBUF entries of one input row", entries, MAX_ENTRIES)])
        return
    rows = min(height, _extent(layer, network)[0])
    group = min(outputs, target.kernels_per_group(element_bytes))
    banks = divide(target, entries, height, rows, outputs * kernel_bytes, group * kernel_bytes)
    if isinstance(banks, Shortage):
        yield Finding(layer.name, "cbuf", "error", banks.message, "a smaller kernel, fewer channels, a larger target")


def _concat(layer: Layer, network: Network, target: Target, precision: Precision) -> Iterator[Finding]:
    """Look at where inputs end: they are written in place, atom by atom, so only the last may end within one."""
    atom = target.feature_atom_bytes // (2 if precision is Precision.FP16 else 1)
    for name in layer.inputs[:-1]:
        channels = network.tensors[name].chw[0]
        if channels % atom:
            message = f"{name!r} has {channels} channels, expected a multiple of {atom}, {target.name}'s atom"
            advice = "put such an input last, or give its layer more filters, all zero"
            yield Finding(layer.name, "concat-atom", "error", message, advice)


def _geometry(operation: object) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    assert isinstance(operation, Convolution)
    return operation.stride, operation.pad, operation.dilation


def _limited(layer: Layer, rule: str, limits: Sequence[tuple[str, int, int]], rewrite: str = "") -> Iterator[Finding]:
    for what, found, limit in limits:
        if found > limit:
            yield Finding(layer.name, rule, "error", f"{what} is {found}, the limit is {limit}", rewrite)


def _groups(layer: Layer) -> Iterator[Finding]:
    group = layer.operation.group if isinstance(layer.operation, Convolution) else 1
    if group > 1:
        message = f"{group} groups run as one kernel with zeros: {group} times the weights and multiplications"
        yield Finding(layer.name, "group", "warning", message)


def _pooling(layer: Layer, network: Network) -> Iterator[Finding]:
    operation = layer.operation
    assert isinstance(operation, Pooling)
    sizes = [
        ("window", max(operation.kernel), MAX_POOLING_WINDOW),
        ("stride", max(operation.stride), MAX_STRIDE),
    ]
    yield from _limited(layer, "pooling-limit", sizes, "windows that are a product of small ones, without padding")


def _relu(layer: Layer, network: Network) -> Iterator[Finding]:
    assert isinstance(layer.operation, ReLU)
    if layer.operation.negative_slope:
        message = f"negative slope {layer.operation.negative_slope}; the compiler runs max(0, x) alone"
        yield Finding(layer.name, "leaky-relu", "error", message, "train with ReLU")


def _softmax(layer: Layer, network: Network) -> Iterator[Finding]:
    _, height, width = network.tensors[layer.inputs[0]].chw
    if (height, width) != (1, 1):
        message = f"{height} x {width} pixels; the runtime computes the softmax of the first one alone"
        yield Finding(layer.name, "softmax-size", "error", message, "average the pixels first")


def _eltwise(layer: Layer, network: Network) -> Iterator[Finding]:
    operation = layer.operation
    assert isinstance(operation, Eltwise)
    if operation.operation != "sum" or len(layer.inputs) != 2 or set(operation.coefficients) - {1.0}:
        message = (
            f"{operation.operation} of {len(layer.inputs)} tensors with coefficients {operation.coefficients or 1}; "
            "the compiler runs the plain sum of two"
        )
        yield Finding(layer.name, "eltwise", "error", message)


def _normalisation(layer: Layer, network: Network) -> Iterator[Finding]:
    message = (
        f"{layer.kind} that is not behind a convolution or inner product of its own, into which it could be folded"
    )
    yield Finding(layer.name, "unfolded", "error", message)


def _nothing(layer: Layer, network: Network) -> Iterator[Finding]:
    yield from ()


_RULES: dict[type, Callable[[Layer, Network], Iterator[Finding]]] = {
    Convolution: _nothing,
    InnerProduct: _nothing,
    Pooling: _pooling,
    ReLU: _relu,
    Softmax: _softmax,
    Concat: _nothing,
    Eltwise: _eltwise,
    BatchNorm: _normalisation,
    Scale: _normalisation,
    Power: _normalisation,
}
