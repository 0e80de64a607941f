"""Which ONNX operators are read, as what, and where that runs: the table in docs/onnx.md.

usage: python -m benchmarks.operators

One small ONNX file for each row is read, and the network checked and compiled for each target and precision; from the
checkout's root. `becomes` is what was read, without the layers around the operator; a cell is as in `layers`. A test
compares the printed table with the documentation, and the results in int8 with fp32.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, parser

from benchmarks.layers import VARIANTS, cell, markdown
from nvdla_quant.hardware.targets import NV_FULL, Precision, QuantizationMode
from nvdla_quant.network.graph import Network
from nvdla_quant.network.onnx.reader import read_onnx
from tests.verified import case_of, correlation, float_scores, minmax_table, smooth_images

Array = NDArray[np.generic]

SHAPE = (32, 8, 8)
"""Of `x`, and of `h`: a convolution of `x` that stands before each operator."""
OPSET = 20
IMAGES = 8
OUTPUT = "o"
"""What the nodes of a row write."""
AROUND = {"pooled", "pixel", "positive"}
"""Tensors of a row's nodes that are there for others to read, besides `h`."""
MICROSOFT = "com.microsoft"


def normal(*shape: int) -> NDArray[np.float32]:
    """Weights of about the size that keeps values as large as they were; of a shape always the same."""
    return (np.random.default_rng(shape).standard_normal(shape) / max(1.0, np.sqrt(np.prod(shape[1:])))).astype(
        np.float32
    )


def whole(*values: int) -> NDArray[np.int64]:
    """Integers."""
    return np.array(values, np.int64)


@dataclass(frozen=True)
class Row:
    """An operator, in which form, and nodes that use it.

    Attributes
    ----------
    operators : tuple[str, ...]
        Names as in `nvdla_quant.network.onnx.reader.SUPPORTED`.
    form : str
        What the row is about, and what is not read.
    nodes : tuple[str, ...]
        As `onnx.parser` reads them, from `h` to `o`; ``{}`` stands for each of the operators in turn.
    constants : dict[str, Array]
        Initialisers.
    behind : bool
        Whether a fully connected layer reads the result, so that what only shows values otherwise can be compiled.
    opset : int
        Version of the operators.
    """

    operators: tuple[str, ...]
    form: str
    nodes: tuple[str, ...]
    constants: dict[str, Array] = field(default_factory=dict)
    behind: bool = False
    opset: int = OPSET


def row(operators: str, form: str, nodes: str, *, behind: bool = False, opset: int = OPSET, **constants: Array) -> Row:
    """Return a row; operators are separated by blanks, nodes by semicolons."""
    return Row(tuple(operators.split()), form, tuple(nodes.split("; ")), constants, behind, opset)


def rows() -> Iterator[Row]:
    """Yield the rows of the table."""
    yield from _learned()
    yield from _functions()
    yield from _arithmetic()
    yield from _poolings()
    yield from _shapes()
    yield from _quantized()


def _learned() -> Iterator[Row]:
    yield row(
        "Conv",
        "two dimensions; group, dilations, uneven pads, auto_pad",
        "o = Conv <pads=[0,1,1,0], strides=[2,2]> (h, w, b)",
        w=normal(16, 32, 3, 3),
        b=normal(16),
    )
    yield row(
        "ConvTranspose",
        "group, output_padding, output_shape",
        "o = ConvTranspose <strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]> (h, w)",
        w=normal(32, 16, 3, 3),
    )
    flat = "f = Flatten (h); "
    yield row(
        "Gemm",
        "of constants, transA = 0; of C a number for each output",
        f"{flat}o = Gemm <alpha=0.5, transB=1> (f, w, b)",
        w=normal(10, 2048),
        b=normal(10),
    )
    yield row(
        "MatMul",
        "by a constant; an Add behind it is the bias",
        f"{flat}m = MatMul (f, w); o = Add (m, b)",
        w=normal(10, 2048).T,
        b=normal(10),
    )
    yield row(
        "BatchNormalization",
        "with the statistics of training; folded into a convolution before it",
        "o = BatchNormalization (h, s, b, m, v)",
        s=normal(32) + 1,
        b=normal(32),
        m=normal(32),
        v=np.abs(normal(32)) + 1,
    )
    yield row("PRelu", "a slope for each channel, or one", "o = PRelu (h, s)", s=np.abs(normal(32, 1, 1)))
    yield row("LRN", "3, 5, 7 or 9 channels", "o = LRN <size=5, alpha=0.1> (h)")


def _functions() -> Iterator[Row]:
    yield row("Relu", "", "o = Relu (h)")
    yield row("LeakyRelu", "", "o = LeakyRelu <alpha=0.2> (h)")
    low, high = np.float32(0), np.float32(2)
    yield row("Clip", "constant bounds, 0 the lower (ReLU6)", "o = Clip (h, low, high)", low=low, high=high)
    yield row("Clip", "other constant bounds", "o = Clip (h, low, high)", low=-high, high=high)
    yield row("Sigmoid", "", "o = Sigmoid (h)")
    yield row("Tanh", "", "o = Tanh (h)")
    yield row("HardSigmoid", "", "o = HardSigmoid <alpha=0.16666667, beta=0.5> (h)")
    yield row("HardSwish", "also as Clip or HardSigmoid, and Mul", "o = HardSwish (h)")
    yield row("Swish", "alpha = 1; also as Sigmoid and Mul", "o = Swish (h)", opset=24)
    yield row("Gelu", 'approximate "none" or "tanh"; also by Erf, or Tanh', "o = Gelu (h)")
    pixel = "pixel = GlobalAveragePool (h); "
    yield row("Softmax", "over the channels of one pixel", f"{pixel}o = Softmax <axis=1> (pixel)")
    few = "few = Conv (h, w); "
    yield row(
        "Softmax", "of each pixel, channels of one atom", f"{few}o = Softmax <axis=1> (few)", w=normal(8, 32, 1, 1)
    )
    yield row("LogSoftmax", "at the end, over the channels of one pixel", f"{pixel}o = LogSoftmax <axis=1> (pixel)")
    yield row("Log", "of a Softmax at the end", f"{pixel}s = Softmax <axis=1> (pixel); o = Log (s)")


def _arithmetic() -> Iterator[Row]:
    number, channels = np.array(1.5, np.float32), normal(32, 1, 1) + 1
    second = "pooled = MaxPool <kernel_shape=[3,3], pads=[1,1,1,1]> (h); "
    yield row("Add Sub Mul Div", "with a constant number (Div: by it)", "o = {} (h, c)", c=number)
    yield row("Add Sub Mul Div", "with constants a channel (Div: by them)", "o = {} (h, c)", c=channels)
    yield row("Add Sub", "of two tensors of a shape", f"{second}o = {{}} (pooled, h)")
    yield row("Mul", "of two tensors of a shape", f"{second}o = Mul (pooled, h)")
    yield row("Mul", "by one pixel (squeeze and excitation)", "pixel = GlobalAveragePool (h); o = Mul (h, pixel)")
    yield row("Max Min", "with a constant number", "o = {} (h, c)", c=np.array(-0.5, np.float32))
    yield row("Max Min", "of tensors of a shape", f"{second}o = {{}} (h, pooled)")
    yield row("Sum", "of tensors of a shape", f"{second}positive = Relu (h); o = Sum (h, pooled, positive)")
    yield row("Neg", "", "o = Neg (h)")
    yield row("Pow", "by one constant", "positive = Relu (h); o = Pow (positive, c)", c=np.array(2, np.float32))


def _poolings() -> Iterator[Row]:
    window = "kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]"
    yield row("MaxPool", "dilations = 1; ceil_mode, uneven pads, auto_pad", f"o = MaxPool <{window}, ceil_mode=1> (h)")
    yield row("AveragePool", "count_include_pad = 1", f"o = AveragePool <{window}, count_include_pad=1> (h)")
    yield row("AveragePool", "count_include_pad = 0", f"o = AveragePool <{window}> (h)")
    yield row("GlobalAveragePool", "", "o = GlobalAveragePool (h)")
    yield row("GlobalMaxPool", "", "o = GlobalMaxPool (h)")
    axes = whole(2, 3)
    yield row("ReduceMean", "of rows, columns or both", "o = ReduceMean <keepdims=0> (h, a)", a=axes)
    yield row("ReduceMax", "of rows, columns or both", "o = ReduceMax <keepdims=0> (h, a)", a=axes)


def _shapes() -> Iterator[Row]:
    second = "pooled = MaxPool <kernel_shape=[3,3], pads=[1,1,1,1]> (h); "
    yield row("Concat", "of channels", f"{second}o = Concat <axis=1> (h, pooled)")
    yield row("Split", "of channels", "l, r = Split <axis=1, num_outputs=2> (h); o = Concat <axis=1> (r, l)")
    yield row("Slice", "of channels", "o = Slice (h, s, e, a, t)", s=whole(8), e=whole(24), a=whole(1), t=whole(1))
    both = whole(2, 2)
    yield row(
        "Slice",
        "every n-th row and column",
        "o = Slice (h, s, e, a, t)",
        s=whole(0, 0),
        e=whole(8, 8),
        a=whole(2, 3),
        t=both,
    )
    yield row(
        "Slice",
        "of rows and columns",
        "o = Slice (h, s, e, a)",
        s=whole(1, 2),
        e=whole(7, 8),
        a=whole(2, 3),
    )
    yield row("SpaceToDepth", "", "o = SpaceToDepth <blocksize=2> (h)")
    yield row("DepthToSpace", "in both orders", "o = DepthToSpace <blocksize=2> (h)")
    yield row("Gather", "of channels, by a constant list", "o = Gather <axis=1> (h, i)", i=whole(*range(31, -1, -2)))
    yield row(
        "Reshape Transpose",
        "shuffle of channels",
        "r = Reshape (h, s); t = Transpose <perm=[0,2,1,3,4]> (r); o = Reshape (t, e)",
        s=whole(0, 2, 16, 8, 8),
        e=whole(0, 32, 8, 8),
    )
    yield row(
        "Reshape Transpose",
        "exchange of pixels and channels within blocks (reorg, pixel shuffle)",
        "r = Reshape (h, s); t = Transpose <perm=[0,1,3,5,2,4]> (r); o = Reshape (t, e)",
        s=whole(0, 32, 4, 2, 4, 2),
        e=whole(0, 128, 4, 4),
    )
    yield row(
        "Pad",
        "with a constant; folded into a convolution or pooling that reads it",
        "o = Pad (h, p)",
        p=whole(0, 0, 1, 1, 0, 0, 1, 1),
    )
    sizes = np.array([1, 1, 2, 2], np.float32)
    asymmetric = 'coordinate_transformation_mode="asymmetric", nearest_mode="floor"'
    yield row("Resize", "nearest, by whole factors", f'o = Resize <mode="nearest", {asymmetric}> (h, , f)', f=sizes)
    yield row("Upsample", "nearest, by whole factors", 'o = Upsample <mode="nearest"> (h, f)', f=sizes, opset=9)
    moved = "o = Transpose <perm=[0,2,3,1]> (h)"
    yield row("Transpose", "moved to where one undoes it, or into weights", moved, behind=True)
    yield row("Flatten", "before a fully connected layer", "o = Flatten (h)", behind=True)
    yield row("Reshape", "before a fully connected layer", "o = Reshape (h, s)", behind=True, s=whole(0, -1))
    pixel, axes = "pixel = GlobalAveragePool (h); ", whole(2, 3)
    yield row("Squeeze", "", f"{pixel}o = Squeeze (pixel, a)", a=axes)
    yield row("Unsqueeze", "", f"{pixel}f = Flatten (pixel); o = Unsqueeze (f, a)", a=axes)
    yield row("Identity", "", "o = Identity (h)")
    yield row("Dropout", "for inference", "o = Dropout (h)")
    yield row("Cast", "that rounds nothing; of the input from bytes too", "o = Cast <to=1> (h)")


def _quantized() -> Iterator[Row]:
    steps: dict[str, Array] = {"s": np.array(0.03, np.float32), "z": np.array(0, np.int8)}
    pair = "q = {0}QuantizeLinear (h, s, z); o = {0}DequantizeLinear (q, s, z)"
    yield row("QuantizeLinear DequantizeLinear", "in pairs; see below", pair.format(""), **steps)
    yield row(
        f"{MICROSOFT}::QuantizeLinear {MICROSOFT}::DequantizeLinear",
        "in pairs; see below",
        pair.format(f"{MICROSOFT}."),
        **steps,
    )


def each(line: Row) -> tuple[Row, ...]:
    """Return a row for each operator of one that stands for several."""
    if not any("{}" in text for text in line.nodes):
        return (line,)
    return tuple(
        replace(line, operators=(name,), nodes=tuple(text.format(name) for text in line.nodes))
        for name in line.operators
    )


def build(line: Row) -> onnx.ModelProto:
    """Return the ONNX model of a row: a convolution, its nodes, a fully connected layer where it has one behind."""
    nodes = [parser.parse_node(text) for text in ("h = Conv <pads=[1,1,1,1]> (x, first)", *line.nodes)]
    weights: dict[str, Array] = {"first": normal(32, 32, 3, 3), **line.constants}
    output = OUTPUT
    if line.behind:
        nodes += [parser.parse_node(text) for text in (f"flat = Flatten ({OUTPUT})", "y = MatMul (flat, last)")]
        weights["last"], output = normal(10, 2048).T, "y"
    graph = helper.make_graph(
        nodes,
        "operator",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *SHAPE])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    versions = [helper.make_opsetid("", line.opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=versions)


def read(line: Row) -> Network:
    """Return what is read of a row's file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "operator.onnx"
        onnx.save(build(line), path)
        return read_onnx(path).network


def becomes(line: Row, network: Network) -> str:
    """Return the kinds of layers that stand for the operators."""
    layers = network.layers[1:-1] if line.behind else network.layers[1:]
    return ", ".join(layer.kind for layer in layers if layer.name not in AROUND) or "nothing"


def agreement(line: Row) -> float:
    """Return how int8 on nv_full, per-filter with a min-max table of the same images, correlates with fp32."""
    network = read(line)
    images = smooth_images(SHAPE, IMAGES)
    table = minmax_table(network, images, IMAGES)
    case = case_of(network, table, images, NV_FULL, Precision.INT8, QuantizationMode.PER_FILTER)
    return correlation(case.scores(), float_scores(network, images))


def cells(line: Row) -> tuple[str, ...]:
    """Return what the operators of a row become, and what runs that; it has to be the same for each."""
    found = set()
    for one in each(line):
        network = read(one)
        found.add((becomes(one, network), *(cell(network, target, precision) for target, precision in VARIANTS)))
    (same,) = found
    return same


def table() -> str:
    """Return the table as Markdown."""
    lines = [(", ".join(line.operators), line.form, *cells(line)) for line in rows()]
    return markdown(("operator", "form", "becomes"), lines)


if __name__ == "__main__":
    print(table())
