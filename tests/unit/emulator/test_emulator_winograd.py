"""Winograd: equal to the direct convolution that it stands for, and to the rule text where its transform rounds."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvdla_quant.emulator.decode.program import Program, decode
from nvdla_quant.emulator.operations import Fp16
from nvdla_quant.emulator.run import run
from nvdla_quant.errors import EmulationError
from nvdla_quant.hardware.targets import NV_FULL
from nvdla_quant.loadable.records import TensorDescriptor
from nvdla_quant.loadable.structs import FORMAT_FEATURE, Engine
from tests import fp16_model as model
from tests import scalar_model as scalar
from tests.descriptors import FLYING, cube, loadable_of, tensor
from tests.profiles import examples

INPUT, OUTPUT, WEIGHTS = 1, 2, 3
DOUBLE_G = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]])
"""Twice the kernel transform of F(2 x 2, 3 x 3) (Lavin and Gray, 2015), so that it is one of integers."""


def stream(weights: NDArray[Any], group: int) -> NDArray[np.uint8]:
    """Pack transformed (kernels, 4, 4, channels): group, 4 channels, kernel, row, column, channel."""
    kernels, _, _, channels = weights.shape
    ordered = [
        weights[k, y, x, c + i]
        for k0 in range(0, kernels, group)
        for c in range(0, channels, 4)
        for k in range(k0, min(k0 + group, kernels))
        for y in range(4)
        for x in range(4)
        for i in range(4)
    ]
    return np.array(ordered, weights.dtype).view(np.uint8)


Parts = tuple[list[Any], dict[int, NDArray[np.uint8] | int], TensorDescriptor, TensorDescriptor]
"""Operations, memories, input and output."""


def parts_of(
    weights: NDArray[Any],
    channels: int,
    size: tuple[int, int],
    tiles: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    pad_value: int,
    shift: int,
    truncate: int,
    fields: dict[str, int] | None = None,
) -> Parts:
    """Return a Winograd convolution of `tiles` x 4 outputs whose accumulators are written as int16 (int8, fp16)."""
    dtype = weights.dtype
    number = 2 if dtype == np.float16 else dtype.itemsize - 1
    atom = 32 // dtype.itemsize
    kernels = len(weights)
    out = tiles[0] * 4, tiles[1] * 4
    padded = tuple((t * 4 + 4) * s for t, s in zip(tiles, stride, strict=True))
    packed = stream(weights, 32 // dtype.itemsize)
    packed = np.pad(packed, (0, -len(packed) % NV_FULL.cbuf_entry_bytes))
    source = cube(INPUT, (channels, *size), atom, dtype.itemsize)
    destination = cube(OUTPUT, (kernels, *out), atom, dtype.itemsize)
    handed = FLYING | {"channel": kernels, "height": out[0], "width": out[1]}
    conv = {
        "conv_mode": 1,
        "data_format": FORMAT_FEATURE,
        "in_precision": number,
        "out_precision": number,
        "batch": 1,
        "data_bank": 1,
        "weight_bank": 1,
        "input_width_csc": padded[1] // stride[1],
        "input_height_csc": padded[0] // stride[0],
        "input_channel_csc": weights.shape[3],
        "kernel_width_csc": 4,
        "kernel_height_csc": 4,
        "kernel_channel_csc": weights.shape[3],
        "input_width_cmac": out[1],
        "input_height_cmac": out[0],
        "conv_stride_y": stride[0],
        "conv_stride_x": stride[1],
        "dilation_y": 1,
        "dilation_x": 1,
        "pad_y_top": pad[0],
        "pad_y_bottom": padded[0] - size[0] - pad[0],
        "pad_x_left": pad[1],
        "pad_x_right": padded[1] - size[1] - pad[1],
        "pad_val": pad_value,
        "pra_truncate": shift,
        "out_cvt": {"scale": 1, "truncate": truncate},
    }
    surface = {
        "src_data": source,
        "dst_data": handed,
        "weight_data": {"address": WEIGHTS, "size": len(packed)},
    }
    sdp = {
        "src_precision": number,
        "dst_precision": number,
        "lut_index": -1,
        "batch_num": 1,
        "conv_mode": 1,
        "out_cvt": {"scale": 1},
    }
    operations = [
        (Engine.CONV, conv | (fields or {}), surface),
        (Engine.SDP, sdp, {"src_data": handed, "dst_data": destination}),
    ]
    memories: dict[int, NDArray[np.uint8] | int] = {
        INPUT: source["size"],
        OUTPUT: destination["size"],
        WEIGHTS: packed,
    }
    bound = tensor("in", INPUT, (channels, *size), atom, dtype, source["size"])
    result = tensor("out", OUTPUT, (kernels, *out), atom, dtype, destination["size"])
    return operations, memories, bound, result


def program_of(*arguments: Any, **named: Any) -> Program:
    """Decode the convolution of `parts_of`."""
    operations, memories, bound, result = parts_of(*arguments, **named)
    return decode(loadable_of(operations, memories, [bound], [result]))


@st.composite
def shapes(draw: st.DrawFn) -> dict[str, Any]:
    tiles = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    stride = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    pad = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    padded = tuple((t * 4 + 4) * s for t, s in zip(tiles, stride, strict=True))
    return {
        "channels": draw(st.sampled_from([1, 5, 32, 33])),
        "tiles": tiles,
        "stride": stride,
        "pad": pad,
        "size": tuple(p - before - draw(st.integers(0, 2)) for p, before in zip(padded, pad, strict=True)),
        "pad_value": draw(st.integers(-100, 100)),
    }


@given(shapes(), st.sampled_from([1, 17]), st.integers(0, 1 << 30))
def test_equals_the_direct_convolution(shape: dict[str, Any], kernels: int, seed: int) -> None:
    """Kernels of 3 x 3 times the strides, transformed by twice G: four times the direct sums, `truncate` 2 divides."""
    rng = np.random.default_rng(seed)
    channels, (sy, sx) = shape["channels"], shape["stride"]
    direct = rng.integers(-7, 8, (kernels, 3 * sy, 3 * sx, channels))
    whole = -(-channels // 16) * 16
    # (k, 3, sy, 3, sx, c) -> (k, 3, 3, sy, sx, c): strides become channels, each of whole atoms.
    parts = direct.reshape(kernels, 3, sy, 3, sx, channels).transpose(0, 1, 3, 2, 4, 5)
    extended = np.zeros((kernels, 3, 3, sy, sx, whole), np.int64)
    extended[..., :channels] = parts
    flat = extended.reshape(kernels, 3, 3, -1)
    weights = np.einsum("ya,xb,kabc->kyxc", DOUBLE_G, DOUBLE_G, flat).astype(np.int16)
    inputs = rng.integers(-9, 10, (2, channels, *shape["size"])).astype(np.int16)
    out = tuple(4 * tiles for tiles in shape["tiles"])
    small = shape["pad_value"] % 10
    program = program_of(weights, **(shape | {"pad_value": small}), shift=0, truncate=2)
    sums = scalar.accumulators(
        inputs.astype(np.int64), direct.astype(np.int16), out, shape["stride"], (1, 1), shape["pad"], small
    )
    expected = np.clip(sums, -(1 << 15), (1 << 15) - 1)
    np.testing.assert_array_equal(run(program, inputs), expected)
    np.testing.assert_array_equal(run(program, inputs, batch=1), expected)


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_rounding_of_the_transform(dtype: type[np.int8] | type[np.int16], shift: int) -> None:
    """Whole range of inputs, one tile at a time in Python's integers (csc_cvt.cpp, NV_NVDLA_cmac.h)."""
    rng = np.random.default_rng(shift)
    bits = np.dtype(dtype).itemsize * 8
    half, channels, kernels = 1 << (bits - 1), 32 // np.dtype(dtype).itemsize, 3
    weights = rng.integers(-half, half, (kernels, 4, 4, channels)).astype(dtype)
    inputs = rng.integers(-half, half, (1, channels, 8, 8)).astype(dtype)
    program = program_of(weights, channels, (8, 8), (1, 1), (1, 1), (0, 0), 0, shift, 14)
    result = run(program, inputs)
    rows = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
    columns = ((1, 1, 1, 0), (0, 1, -1, -1))
    for k, ty, tx in np.ndindex(kernels, 2, 2):
        points = [[0] * 4 for _ in range(4)]
        for c in range(channels):
            tile = inputs[0, c, 2 * ty : 2 * ty + 4, 2 * tx : 2 * tx + 4].tolist()
            for i, j in np.ndindex(4, 4):
                value = sum(rows[i][a] * tile[a][b] * rows[j][b] for a in range(4) for b in range(4))
                points[i][j] += scalar.clamp(scalar.rnd(value, shift), bits) * int(weights[k, i, j, c])
        for y, x in np.ndindex(2, 2):
            total = sum(columns[y][i] * points[i][j] * columns[x][j] for i in range(4) for j in range(4))
            expected = scalar.clamp(scalar.clamp(scalar.rnd(total, 14), 32), bits)
            assert result[0, k, 2 * ty + y, 2 * tx + x] == expected


def test_ignores_dilation() -> None:
    """The sequencer has none with Winograd (NV_NVDLA_CSC_dl.v)."""
    rng = np.random.default_rng(0)
    weights = rng.integers(-99, 99, (3, 4, 4, 16)).astype(np.int16)
    inputs = rng.integers(-99, 99, (1, 16, 8, 8)).astype(np.int16)
    shape = 16, (8, 8), (1, 1), (1, 1), (0, 0), 0, 0, 4
    program = program_of(weights, *shape, fields={"dilation_x": 2})
    np.testing.assert_array_equal(run(program, inputs), run(program_of(weights, *shape), inputs))
    assert "dilation is (1, 2); the hardware ignores it" in program.warnings[0]


def half_bits(kind: str, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.uint16]:
    """Return halves: of one magnitude, of many, with some zeros, or any bits at all."""
    if kind == "any":
        return rng.integers(0, 1 << 16, shape, np.uint16)
    values = rng.normal(0, 1, shape) * 2.0 ** rng.integers(*((-1, 2) if kind == "near" else (-14, 13)), shape)
    values[rng.random(shape) < 0.2] = 0
    return values.astype(np.float16).view(np.uint16)


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    shapes(), st.sampled_from([1, 16, 17]), st.sampled_from(["near", "wide", "any"]), st.sampled_from(list(Fp16)),
    st.integers(0, 1 << 30),
)  # fmt: skip
def test_halves(shape: dict[str, Any], kernels: int, kind: str, fp16: Fp16, seed: int) -> None:
    """Any size, stride and padding: one tile of each case, whose steps the model takes in the order of the channels."""
    rng = np.random.default_rng(seed)
    shape["channels"] = channels = min(shape["channels"], 17)
    (sy, sx), (top, left), (height, width) = shape["stride"], shape["pad"], shape["size"]
    whole = -(-channels // 16) * 16
    weights = half_bits(kind, rng, (kernels, 4, 4, whole * sy * sx))
    inputs = half_bits(kind, rng, (2, channels, height, width))
    pad_value = shape["pad_value"] * 100
    program = program_of(weights.view(np.float16), **(shape | {"pad_value": pad_value}), shift=1, truncate=0)
    result = run(program, inputs.view(np.float16), fp16=fp16).view(np.uint16)
    assert result.tobytes() == run(program, inputs.view(np.float16), batch=1).tobytes()
    n, k, y, x = (int(rng.integers(0, end)) for end in (2, kernels, shape["tiles"][0] * 2, shape["tiles"][1] * 2))

    def value(channel: int, row: int, column: int) -> int:
        if not (0 <= row < height and 0 <= column < width):
            return pad_value % (1 << 16)
        return int(inputs[n, channel, row, column]) if channel < channels else 0

    rows, columns = range(2 * y, 2 * y + 4), range(2 * x, 2 * x + 4)
    accumulators = [model.Accumulator()] * 4
    places = [(dy, dx, c) for dy in range(sy) for dx in range(sx) for c in range(whole)]
    for first in range(0, len(places), 4):
        tiles = [
            model.winograd_input(
                [[value(c, row * sy + dy - top, column * sx + dx - left) for column in columns] for row in rows]
            )
            for dy, dx, c in places[first : first + 4]
        ]
        data = [tiles[c][i][j] for i, j in np.ndindex(4, 4) for c in range(4)]
        lanes = [int(bits) for bits in weights[k, :, :, first : first + 4].reshape(-1)]
        added = model.winograd_step(lanes, data)
        accumulators = [accumulator.plus(one) for accumulator, one in zip(accumulators, added, strict=True)]
    expected = [model.convert(model.SINGLE, model.HALF, accumulator.single()) for accumulator in accumulators]
    assert result[n, k, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].reshape(-1).tolist() == expected


def test_halves_by_hand() -> None:
    """Weights and inputs of one: each row and column of ones becomes (0, 2, 0, 0), so a channel adds 4, 16 make 64."""
    program = program_of(np.ones((1, 4, 4, 16), np.float16), 16, (8, 8), (1, 1), (1, 1), (0, 0), 0, 0, 0)
    result = run(program, np.ones((1, 16, 8, 8), np.float16))
    np.testing.assert_array_equal(result, np.full((1, 1, 4, 4), 64, np.float16))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kernel_height_csc": 3}, r"kernel is \(3, 4\), expected 4 each"),
        ({"in_cvt": {"enable": 1, "scale": 2}}, r"in_cvt .* goes around the converter"),
        ({"batch": 2, "batch_stride": 0}, r"batch is 2, expected 1 with Winograd"),
        ({"pad_x_right": 3, "input_width_csc": 11}, r"sizes with Winograd"),
    ],
)
def test_refusals(fields: dict[str, Any], message: str) -> None:
    weights = np.zeros((1, 4, 4, 16), np.int16)
    with pytest.raises(EmulationError, match=message):
        program_of(weights, 16, (8, 8), (1, 1), (1, 1), (0, 0), 0, 0, 0, fields)
