"""Which operators are read, and what to do about some that are not."""

from collections.abc import Callable
from functools import partial

from nvdla_quant.network.onnx.operators import (
    arithmetic,
    blocks,
    convolutions,
    functions,
    poolings,
    products,
    shapes,
    slices,
)
from nvdla_quant.network.onnx.operators.quantization import refuse
from nvdla_quant.network.onnx.values.nodes import Node
from nvdla_quant.network.onnx.values.reading import Reading

Reader = Callable[[Node, Reading], None]

READERS: dict[str, Reader] = {
    "Add": arithmetic.add,
    "AveragePool": poolings.average_pool,
    "BatchNormalization": functions.batch_normalization,
    "Cast": shapes.cast,
    "Clip": functions.clip,
    "Concat": shapes.concat,
    "Conv": convolutions.conv,
    "ConvTranspose": convolutions.conv_transpose,
    "DepthToSpace": blocks.depth_to_space,
    "DequantizeLinear": refuse,
    "Div": arithmetic.divide,
    "Dropout": shapes.dropout,
    "Flatten": shapes.view,
    "Gather": slices.gather,
    "Gelu": functions.gelu,
    "Gemm": products.gemm,
    "GlobalAveragePool": poolings.global_pool("average"),
    "GlobalMaxPool": poolings.global_pool("max"),
    "HardSigmoid": functions.hard_sigmoid,
    "HardSwish": functions.hard_swish,
    "Identity": shapes.same,
    "LRN": functions.lrn,
    "LeakyRelu": functions.leaky_relu,
    "Log": functions.log,
    "LogSoftmax": functions.log_softmax,
    "MatMul": products.matmul,
    "Max": partial(arithmetic.extreme, "max"),
    "MaxPool": poolings.max_pool,
    "Min": partial(arithmetic.extreme, "min"),
    "Mul": arithmetic.multiply,
    "Neg": arithmetic.negate,
    "PRelu": functions.prelu,
    "Pad": convolutions.pad,
    "Pow": arithmetic.power,
    "QuantizeLinear": refuse,
    "ReduceMax": poolings.reduce("max"),
    "ReduceMean": poolings.reduce("average"),
    "Relu": functions.relu,
    "Reshape": shapes.view,
    "Resize": convolutions.resize,
    "Sigmoid": functions.sigmoid,
    "Slice": slices.slice_,
    "Softmax": functions.softmax,
    "SpaceToDepth": blocks.space_to_depth,
    "Split": slices.split,
    "Squeeze": shapes.view,
    "Sub": arithmetic.subtract,
    "Sum": arithmetic.total,
    "Swish": functions.swish,
    "Tanh": functions.tanh,
    "Transpose": convolutions.transpose,
    "Unsqueeze": shapes.view,
    "Upsample": convolutions.resize,
    "com.microsoft::DequantizeLinear": refuse,
    "com.microsoft::QuantizeLinear": refuse,
}
"""How each operator is read."""

_TABLE = "NVDLA has one look-up table a layer; train with Relu, Sigmoid, Tanh, HardSwish, Swish or Gelu"
_STATISTICS = "it divides by statistics of the image itself, which NVDLA cannot; train with BatchNormalization"
_LOOP = "export the model for inference, with fixed sizes, so that what it decides is known"
_QUANTIZED = (
    "keep float operators between QuantizeLinear and DequantizeLinear, whose scales are read (onnxruntime: "
    "quant_format=QuantFormat.QDQ, calibrated statically); or give the float model"
)
_OUTSIDE = "end the network before it, and compute it from the network's output"

_ATTENTION = "it multiplies tensors that the network computes; NVDLA's weights are fixed"
_RECURRENT = "NVDLA runs layers once, in order; use a network without recurrence"

ADVICE: dict[str, str] = {
    "Abs": "write Max of its input and of Neg of it",
    "ArgMax": "remove it; the accuracy report takes the largest score itself",
    "Attention": _ATTENTION,
    "Celu": _TABLE,
    "ConvInteger": _QUANTIZED,
    "DynamicQuantizeLinear": _QUANTIZED,
    "Einsum": _ATTENTION,
    "Elu": _TABLE,
    "Erf": _TABLE,
    "Exp": _TABLE,
    "GRU": _RECURRENT,
    "GroupNormalization": _STATISTICS,
    "If": _LOOP,
    "InstanceNormalization": _STATISTICS,
    "LSTM": _RECURRENT,
    "LayerNormalization": _STATISTICS,
    "Loop": _LOOP,
    "LpNormalization": _STATISTICS,
    "MatMulInteger": _QUANTIZED,
    "Mean": "write Sum, and Mul by one divided by the number of inputs",
    "Mish": _TABLE,
    "NonMaxSuppression": _OUTSIDE,
    "QLinearConv": _QUANTIZED,
    "QLinearMatMul": _QUANTIZED,
    "RNN": _RECURRENT,
    "ReduceSum": "write ReduceMean, and Mul by the number of pixels",
    "RoiAlign": _OUTSIDE,
    "Scan": _LOOP,
    "Selu": _TABLE,
    "Softplus": _TABLE,
    "Softsign": _TABLE,
    "ThresholdedRelu": _TABLE,
    "TopK": "remove it; the accuracy report takes the largest scores itself",
}
"""What to do about some operators that are not read."""


def advice(kind: str) -> str:
    """Return what to do about an operator that is not read; empty where nothing is known."""
    if "::" in kind:
        return "operators of other domains are one runtime's own; export with ONNX's operators alone"
    return ADVICE.get(kind, "")
