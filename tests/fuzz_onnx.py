"""Mutations of ONNX files: each must be read, or refused by one clear line.

Every second mutation changes bytes of a file: some are flipped, taken away, inserted, or copied from elsewhere in it.
The others change its meaning: another operator, another input, an attribute or a size that is extreme.
"""

import resource
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from nvdla_quant.errors import NvdlaQuantError
from nvdla_quant.network.graph import GELU, Clip, Network, Swish
from nvdla_quant.network.onnx.reader import SUPPORTED, read_onnx
from nvdla_quant.network.onnx.writer import to_onnx
from tests.networks.builder import Builder
from tests.qdq import static

SLOWEST = 20.0
"""Seconds that reading may take."""


def _small() -> Network:
    builder = Builder("small", (2, 6, 6))
    last = builder.conv_norm("c1", "data", 3, 3)
    last = builder.pool("p1", last, "max", 2, 2)
    return _ended(builder, builder.add("clip", Clip(0.0, 6.0), last))


def _ended(builder: Builder, last: str) -> Network:
    builder.softmax(builder.fc("fc", last, 3))
    return builder.build()


def _branches() -> Network:
    builder = Builder("branches", (3, 5, 5))
    a, b = builder.conv("a", "data", 3, 3, group=3), builder.add("b", Swish(), "data")
    last = builder.concat("both", builder.eltwise("sum", "sum", a, b, coefficients=(1.0, -0.5)), "data")
    return _ended(builder, builder.pool("p", builder.add("gelu", GELU(), last), "average", 3, 2, 1))


def _shapes() -> onnx.ModelProto:
    """Shape arithmetic, channels last and a function, as exporters write them."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        net (float[n, 4, 5, 2] x) => (float[n, 3] y) {
            t = Transpose<perm = [0, 3, 1, 2]>(x)
            c = Conv(t, w)
            r = own.act(c)
            b = Transpose<perm = [0, 2, 3, 1]>(r)
            s = Shape(b) n0 = Gather<axis = 0>(s, zero) u = Unsqueeze(n0, zeros) k = Concat<axis = 0>(u, rest)
            f = Reshape(b, k)
            y = MatMul(f, v)
        }
        <domain: "own", opset_import: ["" : 17]> act (a) => (z) { g = Sigmoid(a) z = Mul(a, g) }"""
    )
    whole = {"zero": np.array(0), "zeros": np.array([0]), "rest": np.array([-1])}
    weights = {"w": np.ones((3, 2, 3, 3), np.float32), "v": np.ones((18, 3), np.float32)}
    for name, value in {**whole, **weights}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    return model


def models() -> dict[str, bytes]:
    """Return files that are read."""
    built = {"small": to_onnx(_small()), "branches": to_onnx(_branches()), "shapes": _shapes()}
    built |= {"quantized": static(), "uneven": static(symmetric=False)}
    return {name: model.SerializeToString() for name, model in built.items()}


def mutations(content: bytes, seed: int, count: int) -> Iterator[bytes]:
    """Yield mutations of a file."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        change = _changed_bytes if number % 2 else _changed_meaning
        data = content
        for _ in range(int(rng.integers(1, 4))):
            data = change(data, rng) or b"\0"
        yield data


def _changed_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(content)
    place, length = int(rng.integers(len(data))), int(rng.integers(1, 9))
    match int(rng.integers(6)):
        case 0 | 1:
            data[place] ^= 1 << int(rng.integers(8))
        case 2:
            data[place] = int(rng.integers(256))
        case 3:
            del data[place : place + length]
        case 4:
            data[place:place] = rng.bytes(length)
        case 5:
            other = int(rng.integers(len(data)))
            data[place : place + length] = data[other : other + length]
    return bytes(data)


EXTREMES = (-(2**63), -(2**31), -3, -2, -1, 0, 1, 2, 3, 4, 7, 64, 1000, 2**31, 2**40, 2**62)
OPERATORS = (*SUPPORTED, "Shape", "Expand", "Tile", "Range", "ConstantOfShape", "Where", "Einsum", "TopK", "If", "Elu")


def _changed_meaning(content: bytes, rng: np.random.Generator) -> bytes:
    model = onnx.ModelProto.FromString(content)
    graph = model.graph
    node = graph.node[int(rng.integers(len(graph.node)))]
    names = [name for other in graph.node for name in (*other.input, *other.output)]
    extreme = int(rng.choice(EXTREMES))
    match int(rng.integers(8)):
        case 0:
            node.op_type = str(rng.choice(OPERATORS))
        case 1 if node.input:
            node.input[int(rng.integers(len(node.input)))] = str(rng.choice(names))
        case 2:
            node.input.append(str(rng.choice(names)))
        case 3 if node.attribute:
            attribute = node.attribute[int(rng.integers(len(node.attribute)))]
            attribute.i = extreme
            if attribute.ints:
                attribute.ints[int(rng.integers(len(attribute.ints)))] = extreme
        case 4:
            name = str(rng.choice(["axis", "axes", "perm", "pads", "strides", "group", "kernel_shape", "keepdims"]))
            value = extreme if name in ("axis", "group", "keepdims") else [extreme] * int(rng.integers(1, 5))
            node.attribute.append(onnx.helper.make_attribute(name, value))
        case 5:
            dims = graph.input[0].type.tensor_type.shape.dim
            dims[int(rng.integers(len(dims)))].dim_value = extreme
        case 6:
            tensor = graph.initializer[int(rng.integers(len(graph.initializer)))]
            array = onnx.numpy_helper.to_array(tensor)
            with np.errstate(all="ignore"):
                changed = np.full_like(array, np.float64(extreme)) if rng.integers(2) else array.ravel()[::-1]
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(changed), tensor.name))
        case 7:
            model.opset_import[0].version = int(rng.integers(6, 26))
    return model.SerializeToString()


def fuzz(folder: Path, seed: int, count: int) -> Counter[str]:
    """Read mutations of each model, and count how each ended.

    Raises
    ------
    AssertionError
        One took too long, or its error was more than a line.
    Exception
        Whatever is no clean error.
    """
    ends: Counter[str] = Counter()
    path = folder / "mutation.onnx"
    for name, content in models().items():
        path.write_bytes(content)
        read_onnx(path)
        for number, data in enumerate(mutations(content, seed, count)):
            path.write_bytes(data)
            begin = time.perf_counter()
            end, message = _end(path)
            ends[end] += 1
            assert len(message.splitlines()) <= 1, (name, seed, number, message)
            assert time.perf_counter() - begin < SLOWEST, (name, seed, number)
    return ends


def _end(path: Path) -> tuple[str, str]:
    """Return how reading a file ends: the kind of the error, or ``read``, and the message."""
    try:
        read_onnx(path)
    except NvdlaQuantError as error:
        return type(error).__name__, str(error)
    except Exception as error:
        error.add_note(f"kept as {path}")
        raise
    return "read", ""


def peak_memory() -> int:
    """Return the most bytes that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
