"""What NVIDIA's `nvdla_compiler` (nvdla/sw, 2019) accepts and compiles wrong, and where it hangs: refused beforehand.

Found by running that compiler and comparing what its loadables compute; each rule names the place in its source
(``umd/core/src/compiler``). What it refuses by itself, with an error, is mostly left to it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from nvdla_quant.hardware.cbuf import IMAGE_CHANNELS
from nvdla_quant.hardware.targets import MAX_POOLING_WINDOW, Precision, QuantizationMode, Target
from nvdla_quant.network.caffe.rewrites import for_caffe, not_in_caffe
from nvdla_quant.network.findings import Finding
from nvdla_quant.network.graph import (
    LRN,
    TABULATED,
    BatchNorm,
    Clip,
    Convolution,
    Deconvolution,
    Eltwise,
    Gather,
    InnerProduct,
    Layer,
    Network,
    Pooling,
    Power,
    PReLU,
    ReLU,
    Reshape,
    Scale,
    Sigmoid,
    Softmax,
    TanH,
    pooling_size,
)
from nvdla_quant.network.moves import Crop, DepthToSpace, SpaceToDepth
from nvdla_quant.network.passes import prepare
from nvdla_quant.network.quantized import quantized_layers
from nvdla_quant.network.views import sole_reader, viewed

FUSING_PROFILE = "fast-math"
"""The profile that merges layers, where the faults B and C are."""

IMAGE_FORMAT = "nhwc"
"""The ``--informat`` whose first convolution reads an image; with others it reads a feature cube."""

MEAN_LIMIT = 127
"""Largest magnitude of a BatchNorm's mean in int8, on one side (engine-ast/BatchNormOp.cpp:515)."""


def check_nvdla_compiler(
    network: Network,
    target: Target,
    precision: Precision,
    mode: QuantizationMode | None,
    *,
    profile: str = FUSING_PROFILE,
    informat: str = IMAGE_FORMAT,
) -> tuple[Finding, ...]:
    """Find what `nvdla_compiler` would make of `network` that is wrong, in network order.

    Parameters
    ----------
    network : Network
        As it is handed to the compiler, with its weights.
    target, precision, mode, profile, informat
        Options of the compiler; `mode` is None in fp16.
    """
    findings = []
    if precision not in target.precisions:
        message = f"{target.name} has no {precision} multipliers, and nvdla_compiler does not object"
        findings.append(Finding("", "precision", "error", message, "compile for int8, or for nv_full"))
    given = [layer.name for layer in quantized_layers(network)] if precision is Precision.INT8 else []
    if given:
        message = (
            f"the weights of {len(given)} layers came quantized ({given[0]} is the first), and nvdla_compiler takes no "
            "scales of weights: it chooses them anew, by the largest weight"
        )
        findings.append(Finding("", "weight-scales", "warning", message, "compiler: builtin keeps them"))
    first = _first_convolution(network) if informat == IMAGE_FORMAT else None
    for layer in network.layers:
        if layer is first:
            findings += _image_convolution(layer, network, target, precision, mode, profile)
        rules = _BOTH.get(type(layer.operation), ()) + (
            _INT8.get(type(layer.operation), ()) if precision is Precision.INT8 else ()
        )
        findings += [finding for rule in rules for finding in rule(layer, network)]
        if precision is Precision.INT8 and mode is QuantizationMode.PER_FILTER:
            findings += _dead_filters(layer)
    return tuple(findings)


def findings_by_variant(
    network: Network, target: Target, variants: Mapping[str, Mapping[str, Any]], options: Mapping[str, str]
) -> dict[str, object]:
    """Return the findings of variants that `nvdla_compiler` compiles, as JSON holds them: by name.

    Parameters
    ----------
    network : Network
        The original network.
    target : Target
        What they are compiled for.
    variants : Mapping
        By name: ``precision``, ``mode``, ``is_converted`` (from ONNX to Caffe's files, by `caffe.rewrites.for_caffe`),
        and what `passes.prepare` takes, ``preparation`` and ``pixels``.
    options : Mapping
        ``profile`` and ``informat``.
    """

    def findings(
        precision: str, mode: str | None, is_converted: bool = False, **preparation: Any
    ) -> list[dict[str, Any]]:
        chosen = None if mode is None else QuantizationMode(mode)
        prepared = prepare(network, **preparation)
        if is_converted:
            if lacking := not_in_caffe(prepared):
                return list(map(asdict, lacking))
            prepared = for_caffe(prepared)
        checked = check_nvdla_compiler(prepared, target, Precision(precision), chosen, **options)
        return list(map(asdict, checked))

    return {name: {"findings": findings(**variant)} for name, variant in variants.items()}


def _first_convolution(network: Network) -> Layer | None:
    """Return the convolution that reads the network's image, if one does."""
    for layer in network.layers:
        if isinstance(layer.operation, Convolution):
            source = viewed(network, layer.inputs[0])
            is_image = source not in network.by_name and network.tensors[source].chw[0] <= IMAGE_CHANNELS
            return layer if is_image else None
    return None


def image_post_extension(kernel: tuple[int, int], stride: int, atomic_c: int) -> int:
    """Return how many kernel rows `nvdla_compiler` joins in an image convolution: 4, 2, or 1 for none.

    Source: engine-ast/ConvCoreNode.cpp:886-945. `kernel` is (height, width).
    """
    height, width = kernel
    row = IMAGE_CHANNELS * width
    if stride > width:
        return 1
    for factor, span in ((4, 12), (2, 4)):
        if span * stride + row <= atomic_c and row <= atomic_c // factor:
            return factor if height // factor >= 2 else 1
    return 1


def _image_convolution(
    layer: Layer, network: Network, target: Target, precision: Precision, mode: QuantizationMode | None, profile: str
) -> Iterator[Finding]:
    """Faults A, B and C, in the convolution that reads the image."""
    operation = layer.operation
    assert isinstance(operation, Convolution)
    kernel = operation.weights.shape[2], operation.weights.shape[3]
    factor = image_post_extension(kernel, operation.stride[1], target.atomic_c)
    packed = target.atomic_c // (IMAGE_CHANNELS * kernel[1])
    if factor > 1 and packed != factor:
        message = (
            f"a {kernel[0]}x{kernel[1]} kernel over the image gets wrong weights on {target.name}: its rows are joined "
            f"by {factor} and packed by {packed} (WeightTranslationUnit.h:1878)"
        )
        advice = "set backends.nvdla_compiler.informat to nchw, or pad the kernel with zeros to 6x6 or 7x7"
        yield Finding(layer.name, "image-kernel", "error", message, advice)
    reader = sole_reader(network, layer.name)
    if profile != FUSING_PROFILE or reader is None or not isinstance(reader.operation, BatchNorm | Scale):
        return
    advice = "use preparation fold, or backends.nvdla_compiler.informat nchw or profile default"
    if precision is Precision.INT8 and mode is QuantizationMode.PER_KERNEL and operation.bias is None:
        message = f"no bias, and {reader.name} behind it: the output is constant, multiplied by 1 (SDPSuperOp.cpp:669)"
        yield Finding(layer.name, "image-scale", "error", message, f"{advice}, or per-filter")
    if precision is Precision.FP16 and factor == 1 and operation.weights.shape[1] != IMAGE_CHANNELS:
        message = f"{reader.name} behind it: part of the folded weights is never written (ConvCoreNode.cpp:1200)"
        yield Finding(layer.name, "image-fold", "error", message, advice)


def _group(layer: Layer, network: Network) -> Iterator[Finding]:
    assert isinstance(layer.operation, Convolution)
    if (groups := layer.operation.group) > 1:
        message = f"{groups} groups: only 1/{groups} of the weights are quantized, the rest is left as the heap had it"
        yield Finding(layer.name, "group", "error", message, "the builtin compiler runs groups")


def _dead_filters(layer: Layer) -> Iterator[Finding]:
    operation = layer.operation
    if isinstance(operation, Convolution | InnerProduct) and operation.bias is not None:
        dead = ~operation.weights.reshape(len(operation.weights), -1).any(axis=1)
        if lost := int(np.count_nonzero(dead & (operation.bias != 0))):
            message = f"{lost} filters of zeros with a bias: per-filter gives 0 there and loses the bias"
            yield Finding(layer.name, "dead-filter", "error", message, "per-kernel, or the builtin compiler")


def _pooling(layer: Layer, network: Network) -> Iterator[Finding]:
    assert isinstance(layer.operation, Pooling)
    if max(layer.operation.kernel) > MAX_POOLING_WINDOW:
        message = (
            f"a window of {layer.operation.kernel}: beyond {MAX_POOLING_WINDOW} the compiler hangs, crashes or writes "
            "what the hardware cannot run"
        )
        yield Finding(layer.name, "pooling-window", "error", message, "use preparation fold, which takes it apart")
    axes = zip(network.tensors[layer.inputs[0]].chw[1:], layer.operation.kernel, layer.operation.stride, strict=True)
    upward = [pooling_size(*axis, near, far=far) for axis, (near, far) in zip(axes, layer.operation.sides, strict=True)]
    if network.tensors[layer.name].chw[1:] != tuple(upward):
        message = "round_mode: FLOOR (or ceil_mode: false): its Caffe parser does not read it and rounds the size up"
        yield Finding(layer.name, "pooling-rounding", "error", message, "the builtin compiler rounds down")


def _area(layer: Layer, network: Network) -> Iterator[Finding]:
    operation = layer.operation
    assert isinstance(operation, Pooling)
    padded = any(side for sides in operation.sides for side in sides)
    if operation.method == "average" and operation.area == "image" and padded:
        message = "an average that leaves padding out: Caffe's counts it, and its Caffe parser reads nothing else"
        yield Finding(layer.name, "pooling-area", "error", message, "the builtin compiler divides by the image alone")


def _far(layer: Layer, network: Network) -> Iterator[Finding]:
    operation = layer.operation
    assert isinstance(operation, Convolution | Deconvolution | Pooling)
    if any(near != far for near, far in operation.sides):
        (top, bottom), (left, right) = operation.sides
        message = (
            f"padding of {top} and {bottom} rows, {left} and {right} columns: its Caffe parser reads one number for "
            "both sides"
        )
        yield Finding(layer.name, "padding", "error", message, "the builtin compiler pads each side by itself")


def _leaky(layer: Layer, network: Network) -> Iterator[Finding]:
    assert isinstance(layer.operation, ReLU)
    if layer.operation.negative_slope:
        message = f"the negative slope {layer.operation.negative_slope} is ignored"
        yield Finding(layer.name, "leaky-relu", "error", message, "train with ReLU")


def _eltwise(layer: Layer, network: Network) -> Iterator[Finding]:
    operation = layer.operation
    assert isinstance(operation, Eltwise)
    if len(layer.inputs) != 2 or set(operation.coefficients) - {1.0}:
        message = (
            f"{len(layer.inputs)} inputs with coefficients {operation.coefficients or 1}: two are read, as they are"
        )
        yield Finding(layer.name, "eltwise", "error", message, "sums of two, without coefficients")


def _combination(layer: Layer, network: Network) -> Iterator[Finding]:
    assert isinstance(layer.operation, Eltwise)
    if layer.operation.operation == "min":
        message = "a minimum: its Caffe parser knows sums, maxima and products"
        yield Finding(layer.name, "eltwise", "error", message, "the builtin compiler")
    if len({network.tensors[name].chw for name in layer.inputs}) > 1:
        message = "one pixel times all of an image: it joins tensors of one size alone"
        yield Finding(layer.name, "eltwise", "error", message, "the builtin compiler")


def _product(layer: Layer, network: Network) -> Iterator[Finding]:
    assert isinstance(layer.operation, Eltwise)
    if layer.operation.operation == "prod":
        message = "a product in int8 is rescaled as a sum is: the scales of its inputs are not multiplied"
        yield Finding(layer.name, "eltwise", "error", message)


def _power(layer: Layer, network: Network) -> Iterator[Finding]:
    operation = layer.operation
    assert isinstance(operation, Power)
    if operation.power != 1 or operation.shift != 0:
        message = f"power {operation.power}, shift {operation.shift}: only the scale is read"
        yield Finding(layer.name, "power", "error", message, "use preparation fold")


def _mean(layer: Layer, network: Network) -> Iterator[Finding]:
    assert isinstance(layer.operation, BatchNorm)
    if (lowest := float(layer.operation.mean.min())) < -MEAN_LIMIT:
        message = f"a mean of {lowest:.6g}, the limit in int8 is {-MEAN_LIMIT}"
        yield Finding(layer.name, "batch-norm-mean", "error", message, "use preparation fold")


def _softmax(layer: Layer, network: Network) -> Iterator[Finding]:
    _, height, width = network.tensors[layer.inputs[0]].chw
    if (height, width) != (1, 1):
        message = f"{height} x {width} pixels; the runtime computes the softmax of the first one alone"
        rewrite = "end the network before it, or average the pixels first"
        yield Finding(layer.name, "softmax-size", "error", message, rewrite)


def _no_table(layer: Layer, network: Network) -> Iterator[Finding]:
    message = f"{layer.kind} in int8 has no lookup table: the loadable leaves it out (exit status 0)"
    yield Finding(layer.name, "layer-type", "error", message, "train with ReLU")


def _unknown(layer: Layer, network: Network) -> Iterator[Finding]:
    yield Finding(layer.name, "layer-type", "error", f"its Caffe parser does not know {layer.kind}")


_Rule = Callable[[Layer, Network], Iterator[Finding]]
_BOTH: dict[type, tuple[_Rule, ...]] = {
    Convolution: (_far,),
    Deconvolution: (_far,),
    Pooling: (_pooling, _area, _far),
    ReLU: (_leaky,),
    Eltwise: (_eltwise, _combination),
    Power: (_power,),
    Softmax: (_softmax,),
    PReLU: (_unknown,),
    Reshape: (_unknown,),
    Clip: (_unknown,),
    Gather: (_unknown,),
    Crop: (_unknown,),
    SpaceToDepth: (_unknown,),
    DepthToSpace: (_unknown,),
    **{kind: (_unknown,) for kind in TABULATED if kind not in (Sigmoid, TanH)},
}
_INT8: dict[type, tuple[_Rule, ...]] = {
    Convolution: (_group,),
    Eltwise: (_product,),
    BatchNorm: (_mean,),
    Sigmoid: (_no_table,),
    TanH: (_no_table,),
    LRN: (_no_table,),
}
