"""Which layers run where, and how: the table in docs/compiler.md.

usage: python benchmarks/layers.py

One small network for each row is checked and compiled for each target and precision. A cell names the units that the
layer runs on, or the rule that refuses it. A test compares the printed table with the documentation.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nvdla_quant.compiler.compile import compile_network
from nvdla_quant.errors import CompileError
from nvdla_quant.hardware.targets import TARGETS, Precision, Target
from nvdla_quant.network.graph import (
    LRN,
    BatchNorm,
    Clip,
    Concat,
    Convolution,
    Deconvolution,
    Dropout,
    Eltwise,
    Flatten,
    Gather,
    HardSwish,
    InnerProduct,
    Layer,
    Network,
    Operation,
    Pooling,
    Power,
    PReLU,
    ReLU,
    Reshape,
    Scale,
    Sigmoid,
    Softmax,
    TanH,
    Tensor,
)
from nvdla_quant.network.moves import Crop, DepthToSpace, SpaceToDepth, onnx_order
from nvdla_quant.network.shapes import assemble
from nvdla_quant.support.check import check
from nvdla_quant.table.table import CalibrationTable

VARIANTS = (*((target, Precision.INT8) for target in TARGETS.values()), (TARGETS["nv_full"], Precision.FP16))


@dataclass(frozen=True)
class Row:
    """A layer, how it is run where it is, and a network that has little else."""

    layer: str
    how: str
    network: Network


def ones(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Weights of a value that no scale makes saturate."""
    return np.full(shape, 0.01, np.float32)


def alone(*operations: Operation, shape: tuple[int, ...] = (32, 24, 24)) -> Network:
    """Return a network of these layers, one behind the other."""
    names = ["data", *(f"l{number}" for number in range(len(operations)))]
    layers = [Layer(names[i + 1], operation, (names[i],)) for i, operation in enumerate(operations)]
    return assemble("layers", [Tensor("data", shape, "data")], layers)


def joined(
    operation: Operation, count: int = 2, channels: int = 32, pixel: bool = False, then: Operation | None = None
) -> Network:
    """Return a network that joins poolings of different windows, the last of which is one pixel where asked for.

    `then` may come behind it.
    """
    layers = [Layer(f"p{i}", Pooling("max", (1 + 2 * i,) * 2, (1, 1), (i, i)), ("data",)) for i in range(count)]
    if pixel:
        layers[-1] = Layer(layers[-1].name, Pooling("average", (6, 6)), ("data",))
    layers.append(Layer("join", operation, tuple(layer.name for layer in layers)))
    layers += [Layer("then", then, ("join",))] if then else []
    return assemble("joined", [Tensor("data", (channels, 6, 6), "data")], layers)


def rows() -> Iterator[Row]:
    """Yield the rows of the table."""
    conv = Convolution(ones(16, 32, 3, 3), ones(16), pad=(1, 1))
    yield Row(
        "Convolution", "native, with bias, stride, padding and dilation; rows and columns in several runs", alone(conv)
    )
    behind = Convolution(ones(16, 32, 3, 3), ones(16), (2, 2), far=(1, 1))
    yield Row("Convolution, Deconvolution or Pooling, padded otherwise on the far sides", "native", alone(behind))
    dilated = Convolution(ones(16, 3, 3, 3), None, dilation=(2, 2))
    yield Row(
        "Convolution of an image, dilated", "rewritten: the zeros are written out", alone(dilated, shape=(3, 24, 24))
    )
    grouped = Convolution(ones(64, 1, 3, 3), None, group=64)
    yield Row(
        "Convolution, grouped or depthwise", "rewritten: dense blocks of whole atoms", alone(grouped, shape=(64, 8, 8))
    )
    large = InnerProduct(ones(10, 32 * 24 * 24), None)
    yield Row(
        "InnerProduct",
        "native: a convolution; with fewer kernels or channels a run where the buffer is short",
        alone(large),
    )
    deconvolution = Deconvolution(ones(32, 16, 4, 4), ones(16), (2, 2), (1, 1))
    yield Row(
        "Deconvolution",
        "rewritten: a convolution for each phase of the stride, columns interleaved by copies",
        alone(deconvolution),
    )
    yield Row(
        "Deconvolution with output_padding",
        "rewritten: as above",
        alone(Deconvolution(ones(32, 16, 3, 3), ones(16), (2, 2), (1, 1), far=(0, 0))),
    )
    normal = BatchNorm(ones(16), ones(16), 1e-5), Scale(ones(16), ones(16)), Power(1.0, 2.0, 1.0)
    yield Row("BatchNorm, Scale, Power 1, behind a convolution", "rewritten: folded", alone(conv, *normal))
    yield Row(
        "BatchNorm, Scale, Power 1, elsewhere",
        "native; several in a row are folded into one",
        alone(Pooling("max", (2, 2)), Scale(ones(32), ones(32))),
    )
    yield Row("ReLU", "native, fused", alone(conv, ReLU()))
    yield Row("ReLU with a slope, PReLU", "native, fused behind a convolution", alone(conv, PReLU(ones(16))))
    yield Row(
        "ReLU with a slope, PReLU, behind a sum",
        "native, a pass of its own: the sum takes the unit",
        joined(Eltwise("sum"), then=ReLU(0.1)),
    )
    yield Row(
        "Clip from 0 (ReLU6)",
        "native, fused behind a convolution; nothing where int8's range ends there",
        alone(conv, Clip(0.0, 6.0)),
    )
    yield Row(
        "Clip, other bounds", "native, a pass of its own; in int8 one for each bound", alone(conv, Clip(-1.0, 1.0))
    )
    yield Row("Sigmoid", "native: the SDP's table, fused behind a convolution", alone(conv, Sigmoid()))
    yield Row("TanH", "native: the SDP's table, fused behind a convolution", alone(conv, TanH()))
    yield Row(
        "HardSigmoid, HardSwish, Swish, GELU",
        "native: the SDP's table, fused behind a convolution",
        alone(conv, HardSwish()),
    )
    yield Row(
        "Power other than 1",
        "native: the SDP's table; rewritten without one: on the CPU, cut off toward zero",
        alone(conv, Power(2.0, 1.0, 1.0)),
    )
    yield Row("LRN, 3, 5, 7 or 9 channels", "native: the CDP's table", alone(LRN(5, 1e-4, 0.75, 1.0)))
    yield Row("LRN, other sizes", "none", alone(LRN(11, 1e-4, 0.75, 1.0)))
    yield Row("Pooling up to 8 x 8", "native", alone(Pooling("average", (3, 3), (2, 2))))
    down = Pooling("average", (3, 3), (2, 2), rounding="down")
    yield Row("Pooling that rounds down (`round_mode: FLOOR`, `ceil_mode: false`)", "native", alone(down))
    yield Row(
        "Pooling AVE that leaves padding out (`count_include_pad = 0`)",
        "native; windows that the border cuts are operations of their own",
        alone(Pooling("average", (3, 3), (1, 1), (1, 1), area="image")),
    )
    yield Row(
        "Pooling MAX above 8", "rewritten: a chain of maxima, exact", alone(Pooling("max", (11, 11), (2, 2), (3, 3)))
    )
    yield Row(
        "Pooling AVE, windows side by side, sides of factors up to 8",
        "rewritten: a chain of averages, each axis rounded at each",
        alone(Pooling("average", (14, 14), (14, 14)), shape=(32, 28, 28)),
    )
    yield Row(
        "Pooling AVE above 8, other windows up to 32",
        "rewritten: a depthwise convolution, one rounding",
        alone(Pooling("average", (11, 11), (1, 1))),
    )
    yield Row("Pooling AVE above 8, last window beyond the border", "none", alone(Pooling("average", (11, 11), (2, 2))))
    yield Row(
        "Eltwise SUM of two",
        "native, fused behind a convolution; any scales and coefficients",
        joined(Eltwise("sum", (0.5, -2.0))),
    )
    yield Row("Eltwise MAX or MIN of two", "native, fused behind a convolution; any scales", joined(Eltwise("min")))
    yield Row("Eltwise PROD of two", "native; any scales", joined(Eltwise("prod")))
    yield Row(
        "Eltwise PROD of one pixel with all (squeeze and excitation)",
        "native: an operand a channel; any scales",
        joined(Eltwise("prod"), pixel=True),
    )
    yield Row("Eltwise of more", "rewritten: two at a time", joined(Eltwise("sum"), 3))
    yield Row(
        "Concat, inputs of whole atoms",
        "native: written in place; inputs that are not a convolution's or an SDP's are copied",
        joined(Concat()),
    )
    yield Row(
        "Concat, other inputs",
        "rewritten: as before, then a convolution by one puts the channels side by side",
        joined(Concat(), channels=12),
    )
    yield Row(
        "Gather of channels in whole atoms (slice, split)",
        "free: read where they stand",
        alone(conv, Gather(tuple(range(16))), Pooling("max", (2, 2))),
    )
    yield Row(
        "Gather, other channels (shuffle)",
        "rewritten: a convolution by one, exact",
        alone(conv, Gather(tuple(range(15, -1, -1))), Pooling("max", (2, 2))),
    )
    yield Row(
        "Softmax of 1 x 1 pixels",
        "native: on the CPU, as NVIDIA's runtime does it",
        alone(InnerProduct(ones(8, 32), None), Softmax(), shape=(32,)),
    )
    few = Convolution(ones(8, 32, 1, 1), None)
    yield Row(
        "Softmax of more pixels, channels of one atom",
        "native: on the CPU, an operation for each of up to 16,384 pixels",
        alone(few, Softmax()),
    )
    yield Row("Softmax of more pixels, other", "none", alone(Softmax(), shape=(33, 24, 24)))
    yield Row(
        "Crop",
        "free: read where it stands; copied where it is an output, or one pixel of several atoms",
        alone(conv, Crop((2, 20), (3, 16)), Pooling("max", (2, 2))),
    )
    order = onnx_order(32, (2, 2))
    yield Row(
        "SpaceToDepth (reorg, pixel unshuffle), any order within blocks",
        "rewritten: a convolution by the block, exact",
        alone(Pooling("max", (2, 2), (2, 2)), SpaceToDepth((2, 2), order)),
    )
    yield Row(
        "DepthToSpace (pixel shuffle), any order within blocks",
        "rewritten: a deconvolution by the block, exact",
        alone(Pooling("max", (2, 2), (2, 2)), DepthToSpace((2, 2), tuple(range(32)))),
    )
    yield Row(
        "Dropout, Flatten, Reshape before InnerProduct",
        "free",
        alone(Dropout(), Flatten(), InnerProduct(ones(8, 128), None), shape=(8, 4, 4)),
    )
    yield Row("Reshape of a cube before anything else", "none", alone(Reshape((16, 2, 4)), ReLU(), shape=(8, 4, 4)))


def cell(network: Network, target: Target, precision: Precision) -> str:
    """Return the units that run `network`, or what refuses it; `check` and the compiler have to agree."""
    errors = [finding for finding in check(network, target, precision) if finding.severity == "error"]
    table = CalibrationTable(dict.fromkeys(network.tensors, 0.05)) if precision is Precision.INT8 else None
    try:
        units = compile_network(network, table, target, precision).facts.units
    except CompileError:
        if not errors:
            raise
        return f"refused (`{errors[0].rule}`)"
    assert not errors, f"check refuses what compiles: {errors[0]}"
    return ", ".join(unit for unit, count in units.items() if count)


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown, each of whose lines ends in the cells of all `VARIANTS`, in order.

    Targets whose cells are all the same share a column.
    """
    own = len(head)
    shared: dict[tuple[str, ...], list[str]] = {}
    for number, (target, precision) in enumerate(VARIANTS):
        column = (str(precision), *(line[own + number] for line in lines))
        shared.setdefault(column, []).append(target.name)
    heads = [*head, *(f"{', '.join(names)}: {precision}" for (precision, *_), names in shared.items())]
    printed = [heads, ["---"] * len(heads)]
    printed += [[*line[:own], *(column[1 + row] for column in shared)] for row, line in enumerate(lines)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in printed)


def table() -> str:
    """Return the table as Markdown."""
    lines = [
        (row.layer, row.how, *(cell(row.network, target, precision) for target, precision in VARIANTS))
        for row in rows()
    ]
    return markdown(("layer", "how"), lines)


if __name__ == "__main__":
    print(table())
