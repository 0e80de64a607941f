"""Inputs of an ONNX graph: one image of a known size."""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from nvdla_quant.errors import NetworkError, UnsupportedError
from nvdla_quant.network.onnx.values.names import printable
from nvdla_quant.network.onnx.values.nodes import MOST_ELEMENTS

_TYPES = (TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT8, TensorProto.FLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True)
class Input:
    """An input that is fed: no initialiser.

    Attributes
    ----------
    name : str
        Name of the ONNX value.
    shape : tuple[int, ...]
        With the batch first, in the file's order of axes.
    type : str
        ONNX's name of its element type.
    """

    name: str
    shape: tuple[int, ...]
    type: str


def fix_inputs(
    graph: onnx.GraphProto, input_shape: tuple[int, ...] | None
) -> tuple[tuple[Input, ...], tuple[str, ...]]:
    """Give every input a fixed shape, in place, and forget all other shapes, which follow.

    Parameters
    ----------
    graph : GraphProto
        The outer graph.
    input_shape : tuple[int, ...] or None
        Shape of the network's only input, in the file's order of axes, with the batch or without.

    Returns
    -------
    tuple[Input, ...], tuple[str, ...]
        The inputs, and remarks for the user.

    Raises
    ------
    NetworkError
        A size is not known, or `input_shape` contradicts the file.
    UnsupportedError
        An input is no tensor of numbers, or has no batch.
    """
    initial = {tensor.name for tensor in graph.initializer}
    fed = [item for item in graph.input if item.name not in initial]
    if not fed:
        raise NetworkError("the graph has no input; a network for inference takes an image")
    if input_shape is not None and len(fed) > 1:
        names = ", ".join(repr(item.name) for item in fed)
        raise NetworkError(f"input_shape is given for one input, the file has {len(fed)}: {names}; fix their shapes")
    inputs, remarks = [], []
    for item in fed:
        _check_type(item)
        dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in item.type.tensor_type.shape.dim]
        symbols = [printable(dim.dim_param) for dim in item.type.tensor_type.shape.dim]
        known = item.type.tensor_type.HasField("shape")
        shape = _fixed(item.name, dims if known else None, symbols, input_shape)
        if known and not dims[0]:
            remarks.append(f"input {item.name!r}: the batch ({symbols[0] or 'free'}) is fixed to 1 image")
        element = TensorProto.DataType.Name(item.type.tensor_type.elem_type)
        inputs.append(Input(item.name, shape, element))
        item.CopyFrom(onnx.helper.make_tensor_value_info(item.name, item.type.tensor_type.elem_type, shape))
    del graph.input[:]
    graph.input.extend(fed)
    del graph.value_info[:]
    for output in graph.output:
        if output.type.HasField("tensor_type"):
            output.type.tensor_type.ClearField("shape")
    return tuple(inputs), tuple(remarks)


def _check_type(item: onnx.ValueInfoProto) -> None:
    kind = item.type.WhichOneof("value")
    if kind != "tensor_type":
        raise UnsupportedError(f"input {item.name!r} is a {kind or 'value without type'}, expected a tensor")
    if item.type.tensor_type.elem_type not in _TYPES:
        got = item.type.tensor_type.elem_type
        name = TensorProto.DataType.Name(got) if got in TensorProto.DataType.values() else got
        raise UnsupportedError(
            f"input {item.name!r} is of type {name}, expected one of "
            f"{', '.join(TensorProto.DataType.Name(kind) for kind in _TYPES)}"
        )


def _fixed(
    name: str, dims: Sequence[int | None] | None, symbols: Sequence[str], given: tuple[int, ...] | None
) -> tuple[int, ...]:
    """Return the shape of one input with its batch."""
    how = "give it by --input-shape on the command line, or as the model's input_shape in the configuration"
    if dims is None and given is None:
        raise NetworkError(f"input {name!r} has no shape; {how} (all axes, the batch 1, such as 1,3,224,224)")
    if dims is not None and len(dims) not in (2, 3, 4):
        raise UnsupportedError(
            f"input {name!r} has {len(dims)} axes, {_told(dims, symbols)}, expected 4 (batch, channels, height, width; "
            "or channels last), 3 (batch, height, width) or 2 (batch, features)"
        )
    if given is not None:
        if dims is None:
            dims = [None] * (len(given) if len(given) in (2, 4) else len(given) + 1)
        whole = given if len(given) == len(dims) else (dims[0] or 1, *given)
        agrees = len(whole) == len(dims) and all(
            not old or old == new for old, new in zip(dims[1:], whole[1:], strict=True)
        )
        if not agrees or min(whole) < 1:
            raise NetworkError(
                f"input_shape {given} does not fit the input {name!r}, which is {_told(dims, symbols)}; give the "
                "sizes of all axes in the file's order, the batch 1"
            )
        shape = tuple(whole)
    else:
        assert dims is not None
        if unknown := [symbols[i] or f"axis {i}" for i in range(1, len(dims)) if not dims[i]]:
            raise NetworkError(
                f"input {name!r} is {_told(dims, symbols)}: the size of {', '.join(unknown)} is not fixed; {how} "
                "(all axes in the file's order, the batch 1)"
            )
        shape = (dims[0] or 1, *(size or 0 for size in dims[1:]))
    if min(shape) < 1:
        raise NetworkError(f"input {name!r} has the shape {shape}, expected sizes of 1 or more")
    count = 1
    for size in shape:
        count *= size
    if count > MOST_ELEMENTS:
        raise UnsupportedError(f"input {name!r} has the shape {shape}, more than {MOST_ELEMENTS} values")
    return shape


def _told(dims: Sequence[int | None], symbols: Sequence[str]) -> str:
    sizes = (
        str(size) if size else symbol or "?" for size, symbol in zip(dims, symbols or [""] * len(dims), strict=True)
    )
    return f"({', '.join(sizes)})"
