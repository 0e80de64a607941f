"""Convolutions as descriptors say them, against the scalar model: precisions, pixel formats, batches, compression.

The loadables are built field by field, so that decoding is part of what is tested.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvdla_quant.emulator.decode.program import Limits, Program, decode
from nvdla_quant.emulator.integer import conv
from nvdla_quant.emulator.operations import ConvOperation, SdpOperation
from nvdla_quant.emulator.pixels import PIXELS
from nvdla_quant.emulator.run import run, run_tensors, write_steps
from nvdla_quant.errors import EmulationError, LoadableError
from nvdla_quant.hardware.cbuf import feature_entries, image_entries
from nvdla_quant.hardware.targets import NV_FULL, NV_SMALL, Target
from nvdla_quant.loadable.records import Loadable, TensorDescriptor
from nvdla_quant.loadable.structs import (
    FORMAT_FEATURE,
    OPERATION_BYTES,
    OPERATIONS,
    SURFACE_BYTES,
    SURFACES,
    Engine,
    ImageFormat,
)
from tests import scalar_model as scalar
from tests.descriptors import FLYING, cube, fill, loadable_of, tensor

INPUT, OUTPUT, WEIGHTS, OPERANDS, MASK, SIZES = range(1, 7)
NUMBERS = {"int8": 0, "int16": 1, "fp16": 2}
TYPES = {"int8": np.dtype(np.int8), "int16": np.dtype(np.int16), "fp16": np.dtype(np.float16)}
BITS = {"int8": 8, "int16": 16}
Shape = tuple[int, int, int]
OUT = scalar.Cvt(3, 77, 9)


@dataclass(frozen=True)
class Case:
    """A convolution with a bias behind it."""

    target: Target = NV_FULL
    given: str = "int8"
    precision: str = "int8"
    output: str = "int8"
    pixels: str | None = None
    channels: int = 4
    kernels: int = 5
    kernel: tuple[int, int] = (2, 2)
    size: tuple[int, int] = (4, 5)
    out: tuple[int, int] = (3, 2)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)
    pad_value: int = 0
    post_extension: int = 0
    truncate: int = 0
    converter: scalar.Cvt | None = None
    means: tuple[int, int, int, int] | None = None
    signed: bool = True
    batch: int = 1
    compressed: bool = False
    out_converter: scalar.Cvt = OUT
    relu: bool = False
    seed: int = 0

    @property
    def out_shape(self) -> Shape:
        return self.kernels, *self.out


def cvt(converter: scalar.Cvt | None) -> dict[str, int]:
    values = converter or scalar.Cvt(0, 1, 0)
    return {"offset": values.offset, "scale": values.scale, "truncate": values.shift, "enable": int(bool(converter))}


def weights_of(case: Case) -> NDArray[Any]:
    rng = np.random.default_rng(case.seed)
    limit = 1 << (BITS[case.precision] - 1)
    weights = rng.integers(-limit, limit, (case.kernels, *case.kernel, case.channels))
    zeros = rng.random(weights.shape) < (0.7 if case.compressed else 0.1)
    return np.where(zeros, 0, weights).astype(TYPES[case.precision])


def bias_of(case: Case) -> NDArray[np.int16]:
    return np.random.default_rng(case.seed + 1).integers(-(1 << 15), 1 << 15, case.kernels).astype(np.int16)


def compress(case: Case, packed: NDArray[np.uint8]) -> dict[int, NDArray[np.uint8]]:
    """Return weights, WMB and WGS (docs/hardware/weights.md, "Compression"), group by group."""
    size = TYPES[case.precision].itemsize
    elements = packed.reshape(-1, size)
    kept = elements.any(axis=1)
    group = case.target.atomic_k // size * (len(elements) // case.kernels)
    counts = [int(kept[start : start + group].sum()) * size for start in range(0, len(kept), group)]
    bits = [sum(int(kept[i + b]) << b for b in range(8) if i + b < len(kept)) for i in range(0, len(kept), 8)]
    return {
        WEIGHTS: np.concatenate([elements[kept].reshape(-1), np.zeros(4, np.uint8)]),
        MASK: np.array(bits, np.uint8),
        SIZES: np.array(counts, "<u4").view(np.uint8),
    }


def build(case: Case, conv_fields: Mapping[str, Any] | None = None, sdp: Mapping[str, Any] | None = None) -> Loadable:
    """Return the loadable of a case; features come as a tensor, images as the bytes of a line of pixels."""
    operations, memories, bound, result = parts_of(case, conv_fields or {}, sdp or {})
    return loadable_of(operations, memories, [bound], [result])


def entries_of(fields: Mapping[str, Any], target: Target) -> int:
    """Return the entries of the buffer that a row takes: of features, or of an image of four components."""
    size, width = 1 if fields["out_precision"] == 0 else 2, fields["input_width_csc"]
    if fields["data_format"] == FORMAT_FEATURE:
        return feature_entries(target, fields["input_channel_csc"], width, size)
    return image_entries(target, width, fields["pad_x_left"] + fields["pad_x_right"], size)


def in_entries(packed: NDArray[np.uint8], target: Target) -> NDArray[np.uint8]:
    """Return weights with the zeros that fill up their last entry of the buffer."""
    return np.pad(packed, (0, -len(packed) % target.cbuf_entry_bytes))


def parts_of(
    case: Case, conv_fields: Mapping[str, Any], sdp: Mapping[str, Any]
) -> tuple[list[Any], dict[int, NDArray[np.uint8] | int], TensorDescriptor, TensorDescriptor]:
    """Return operations, memories, input and output of a case."""
    image = case.pixels is not None
    packed = scalar.stream(weights_of(case), case.target, image, case.post_extension)
    memories: dict[int, NDArray[np.uint8] | int] = {
        WEIGHTS: in_entries(packed, case.target),
        OPERANDS: bias_of(case).view(np.uint8),
    }
    memories |= compress(case, packed) if case.compressed else {}
    given, out = TYPES[case.given], TYPES[case.output]
    atom, out_atom = (case.target.feature_atom_bytes // dtype.itemsize for dtype in (given, out))
    planes = PIXELS[ImageFormat[case.pixels]].plane_bytes if case.pixels is not None else ()
    shape = (case.channels, *case.size)
    surface: dict[str, Any] = {
        "dst_data": FLYING | dict(zip(("channel", "height", "width"), case.out_shape, strict=True))
    }
    if image:
        source = cube(INPUT, shape, planes[0], 1)
        line, uv_line = (case.size[1] * (planes[0], planes[-1])[i] + 3 for i in range(2))
        source |= {"channel": case.channels, "line_stride": line}
        size = case.size[0] * (line + (uv_line if len(planes) == 2 else 0))
        surface |= {"offset_u": case.size[0] * line, "in_line_uv_stride": uv_line}
        bound = tensor("in", INPUT, (1, 1, size), 1, np.dtype(np.int8), size, image=True)
    else:
        source = cube(INPUT, shape, atom, given.itemsize)
        size = source["size"] * case.batch
        bound = tensor("in", INPUT, shape, atom, given, size, n=case.batch)
    memories[INPUT] = size
    destination = cube(OUTPUT, case.out_shape, out_atom, out.itemsize)
    memories[OUTPUT] = destination["size"] * case.batch
    result = tensor("out", OUTPUT, case.out_shape, out_atom, out, memories[OUTPUT], n=case.batch)
    surface["src_data"] = source
    for name, memory in (("weight", WEIGHTS), ("wmb", MASK), ("wgs", SIZES)):
        raw = memories.get(memory)
        surface[f"{name}_data"] = {"address": memory, "size": 0 if raw is None else len(raw)}  # type: ignore[arg-type]
    row = case.channels * case.kernel[1] if image else case.channels
    means = dict(zip(("mean_ry", "mean_gu", "mean_bv", "mean_ax"), case.means or (0, 0, 0, 0), strict=True))
    pad_right = max((case.out[1] - 1) * case.stride[1] + case.kernel[1] - case.pad[1] - case.size[1], 0)
    fields: dict[str, Any] = {
        "data_format": FORMAT_FEATURE if case.pixels is None else ImageFormat[case.pixels],
        "in_precision": NUMBERS[case.given],
        "out_precision": NUMBERS[case.precision],
        "batch": case.batch,
        "batch_stride": source["size"],
        "weight_format": int(case.compressed),
        "data_bank": 1,
        "weight_bank": 1,
        "post_extension": case.post_extension,
        "pixel_override": int(case.signed),
        "input_width_csc": case.size[1],
        "input_height_csc": case.size[0],
        "input_channel_csc": case.channels,
        "kernel_width_csc": 1 if image else case.kernel[1],
        "kernel_height_csc": case.kernel[0],
        "kernel_channel_csc": row,
        "input_width_cmac": case.out[1],
        "input_height_cmac": case.out[0],
        "conv_stride_y": case.stride[0],
        "conv_stride_x": case.stride[1],
        "dilation_y": case.dilation[0],
        "dilation_x": case.dilation[1],
        "pad_y_top": case.pad[0],
        "pad_x_left": case.pad[1],
        "pad_x_right": pad_right,
        "pad_val": case.pad_value,
        "mean_format": int(case.means is not None),
        "in_cvt": cvt(case.converter),
        "out_cvt": {"scale": 1, "truncate": case.truncate},
        **means,
    }
    fields |= conv_fields
    fields = {"entry_per_slice": entries_of(fields, case.target)} | fields
    x1 = {"enable": 1, "type": 2, "mode": 1, "alu_type": 2, "precision": 1, "shift_value": 2, "act": int(case.relu)}
    sdp_fields: dict[str, Any] = {
        "src_precision": NUMBERS[case.precision],
        "dst_precision": NUMBERS[case.output],
        "lut_index": -1,
        "batch_num": case.batch,
        "batch_stride": destination["size"],
        "out_cvt": cvt(case.out_converter),
        "x1_op": x1,
    }
    handed = FLYING | dict(zip(("channel", "height", "width"), case.out_shape, strict=True))
    sdp_surface = {"src_data": handed, "x1_data": {"address": OPERANDS}, "dst_data": destination}
    operations = [
        (Engine.CONV, fields, surface),
        (Engine.SDP, sdp_fields | dict(sdp), sdp_surface),
    ]
    return operations, memories, bound, result


def inputs_of(case: Case, program: Program) -> NDArray[Any]:
    rng = np.random.default_rng(case.seed + 2)
    port = program.inputs[0]
    raw = rng.integers(0, 256, 2 * case.batch * int(np.prod(port.shape)) * port.dtype.itemsize, np.uint8)
    return raw.view(port.dtype).reshape(2 * case.batch, *port.shape)


def pixel_values(case: Case, line: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return (components, height, width) of what stands in the bytes of one image, before the converter."""
    assert case.pixels is not None
    height, width = case.size
    layout = scalar.components(case.pixels)
    packed = "A2" in case.pixels
    values = np.zeros((len(layout), height, width), np.int64)
    ends: dict[int, int] = {}
    for _, plane, low, bits in layout:
        ends[plane] = max(ends.get(plane, 0), -(-(low + bits) // 8))
    start = 0
    for plane, size in sorted(ends.items()):
        stride = width * size + 3
        for c, (_, where, low, bits) in enumerate(layout):
            if where != plane:
                continue
            wide = bits if packed or bits == 8 else 16
            for y, x in np.ndindex(height, width):
                at = start + y * stride + x * size
                number = int.from_bytes(line[at : at + size].tobytes(), "little") >> low
                value = number & ((1 << wide) - 1)
                whole = 8 if bits == 8 else 16
                value <<= whole - wide
                # Without a converter numbers are signed.
                negative = (case.signed or case.converter is None) and value >= 1 << (whole - 1)
                values[c, y, x] = value - (1 << whole) * negative
        start += height * stride
    return values


def convert(case: Case, values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Apply the input converter to (channels, height, width)."""
    if case.converter is None:
        return values
    result = np.empty_like(values)
    for place in np.ndindex(values.shape):
        offset = case.converter.offset if case.means is None else case.means[place[0]]
        converter = replace(case.converter, offset=offset)
        result[place] = scalar.out_converter(int(values[place]), converter, BITS[case.precision])
    return result


def expected_of(case: Case, inputs: NDArray[Any]) -> NDArray[Any]:
    half = 1 << (BITS[case.precision] - 1)
    pad_value = (case.pad_value + half) % (2 * half) - half
    if case.pixels is None:
        plain = np.stack([convert(case, image.astype(np.int64)) for image in inputs])
    else:
        plain = np.stack([convert(case, pixel_values(case, image.view(np.uint8).reshape(-1))) for image in inputs])
    weights = weights_of(case).astype(np.int64)
    sums = scalar.accumulators(plain, weights, case.out, case.stride, case.dilation, case.pad, pad_value)
    bias, result = bias_of(case), np.empty(sums.shape, TYPES[case.output])
    for place in np.ndindex(sums.shape):
        value = scalar.clamp(scalar.rnd(int(sums[place]), case.truncate), 32)
        act = "relu" if case.relu else "none"
        value = scalar.x_unit(value, scalar.XUnit("sum", int(bias[place[1]]), 2, None, 0, act))
        out = case.out_converter
        if case.output == "fp16":
            result[place] = scalar.half_of(scalar.out_converter(value, out, 17))
        else:
            result[place] = scalar.out_converter(value, out, BITS[case.output])
    return result


def check(case: Case) -> None:
    program = decode(build(case), case.target)
    inputs = inputs_of(case, program)
    expected = expected_of(case, inputs)
    np.testing.assert_array_equal(run(program, inputs), expected)
    np.testing.assert_array_equal(run(program, inputs, batch=1), expected)


IMAGES = [name for name in ImageFormat.__members__ if not name.endswith("_F")]


@st.composite
def converters(draw: st.DrawFn) -> scalar.Cvt:
    offset, scale = draw(st.integers(-400, 400)), draw(st.integers(-(1 << 15), (1 << 15) - 1))
    return scalar.Cvt(offset, scale, draw(st.integers(0, 20)))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    pixels = draw(st.sampled_from([None, *IMAGES]))
    precision = draw(st.sampled_from(["int8", "int16"]))
    given = precision
    channels = draw(st.sampled_from([1, 7, 17, 33, 70]))
    converter = draw(st.one_of(st.none(), converters()))
    kernel = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    post_extension = 0
    if pixels is not None:
        layout = scalar.components(pixels)
        channels = len(layout)
        given = "int8" if layout[0][3] == 8 else "int16"
        converter = draw(converters()) if given != precision else converter
        post_extension = draw(st.integers(0, 2))
    means = st.integers(-(1 << BITS[given]) // 2, (1 << BITS[given]) // 2 - 1)
    batch = 1 if pixels is not None else draw(st.sampled_from([1, 1, 2, 3]))
    outputs = ["int8", "int16", "fp16"] if precision == "int8" else ["int16", "fp16"]
    out_converter = draw(converters())
    return Case(
        target=NV_FULL if batch > 1 or "int16" in (precision, given) else draw(st.sampled_from([NV_FULL, NV_SMALL])),
        given=given,
        precision=precision,
        output=precision if batch > 1 else draw(st.sampled_from(outputs)),
        pixels=pixels,
        channels=channels,
        kernels=draw(st.sampled_from([1, 5, 17, 33])),
        kernel=kernel,
        size=(draw(st.integers(1, 5)), draw(st.integers(1, 5))),
        out=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        stride=(draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        dilation=(1, 1) if pixels is not None else (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        pad=(draw(st.integers(0, 2)), draw(st.integers(0, 2))),
        pad_value=draw(st.integers(-(1 << 15), (1 << 15) - 1)),
        post_extension=post_extension,
        truncate=draw(st.sampled_from([0, 0, 5, 16])),
        converter=converter,
        means=draw(st.one_of(st.none(), st.tuples(*[means] * 4))) if pixels else None,
        signed=pixels is None or draw(st.booleans()),
        batch=batch,
        out_converter=replace(out_converter, offset=draw(st.integers(-(1 << 31), (1 << 31) - 1))),
        relu=draw(st.booleans()),
        seed=draw(st.integers(0, 1 << 30)),
    )


@given(cases())
def test_convolutions(case: Case) -> None:
    if case.target is NV_SMALL and case.output != "int8":
        case = replace(case, output="int8")
    check(case)


@given(cases())
def test_compressed_weights(case: Case) -> None:
    """Only nv_full has them; the same results as of the weights that they stand for."""
    plain = replace(case, target=NV_FULL, compressed=False, means=None)
    program, other = decode(build(plain)), decode(build(replace(plain, compressed=True)))
    inputs = inputs_of(plain, program)
    # The compressed case has more zeros in its weights.
    expected = expected_of(replace(plain, compressed=True), inputs)
    np.testing.assert_array_equal(run(other, inputs), expected)


@pytest.mark.parametrize("name", list(ImageFormat.__members__))
def test_every_pixel_format(name: str) -> None:
    """Fixed shapes, so that each format is seen whatever hypothesis draws; halves against float64."""
    layout = scalar.components(name)
    given = "fp16" if name.endswith("_F") else "int8" if layout[0][3] == 8 else "int16"
    if given != "fp16":
        check(Case(given=given, precision=given, output=given, pixels=name, channels=len(layout), signed=False))
        return
    assert len(PIXELS[ImageFormat[name]].components) == len(layout)
    assert [c.byte * 8 for c in PIXELS[ImageFormat[name]].components] == [low for _, _, low, _ in layout]


@settings(max_examples=60)
@given(cases())
def test_images_as_halves(case: Case) -> None:
    """One tap of weight 1 for each component: what the converter made of it comes out."""
    if case.pixels is None:
        return
    given = case.given
    converter = case.converter or scalar.Cvt(5, 3, 1)
    case = replace(case, converter=converter, kernels=case.channels, kernel=(1, 1), out=case.size, stride=(1, 1))
    case = replace(case, pad=(0, 0), post_extension=0, target=NV_FULL, means=None)
    weights = np.eye(case.channels, dtype=np.float16).reshape(case.channels, 1, 1, case.channels)
    memory = scalar.stream(weights, NV_FULL, True, 0)
    # The loadable of the integers, with the precision and the weights of halves.
    loadable = build(
        replace(case, precision=given, output=given, truncate=0),
        {"out_precision": 2},
        {"src_precision": 2, "dst_precision": 2, "x1_op": {"enable": 0}},
    )
    loadable = with_output(loadable, case, np.dtype(np.float16), memory)
    program = decode(loadable)
    inputs = inputs_of(case, program)
    result = run(program, inputs)
    for image, values in zip(inputs, result, strict=True):
        raw = pixel_values(case, image.view(np.uint8).reshape(-1))
        for place in np.ndindex(raw.shape):
            wide = scalar.out_converter(int(raw[place]), converter, 17)
            assert values[place] == scalar.half_of(wide)


def with_output(loadable: Loadable, case: Case, dtype: np.dtype[Any], weights: NDArray[np.uint8]) -> Loadable:
    """Return `loadable` with other weights and an output of another type; memories grow as needed."""
    out = cube(OUTPUT, case.out_shape, 32 // dtype.itemsize, dtype.itemsize)
    old = next(entry for entry in loadable.tensors if entry.name == "out")
    new = tensor("out", OUTPUT, case.out_shape, 32 // dtype.itemsize, dtype, out["size"])
    weights = in_entries(weights, case.target)
    sizes = {OUTPUT: out["size"], WEIGHTS: len(weights)}
    blobs = tuple(
        replace(blob, data=weights.tobytes()) if blob.name == str(WEIGHTS) else blob for blob in loadable.blobs
    )
    surfaces = next(blob for blob in blobs if len(blob.data) == 2 * SURFACE_BYTES)
    raw = bytearray(surfaces.data)
    fill(np.ndarray((), SURFACES[Engine.CONV], raw), {"weight_data": {"size": len(weights)}})  # type: ignore[arg-type]
    fill(np.ndarray((), SURFACES[Engine.SDP], raw, SURFACE_BYTES), {"dst_data": out})  # type: ignore[arg-type]
    return replace(
        loadable,
        blobs=tuple(replace(blob, data=bytes(raw)) if blob is surfaces else blob for blob in blobs),
        memories=tuple(replace(m, size=sizes.get(m.id, m.size)) for m in loadable.memories),
        addresses=tuple(replace(a, size=sizes.get(a.mem_id, a.size)) for a in loadable.addresses),
        tensors=tuple(new if entry is old else entry for entry in loadable.tensors),
    )


@pytest.mark.parametrize("name", ["R16_F", "A16B16G16R16_F", "A16Y16U16V16_F"])
def test_images_of_halves(name: str) -> None:
    """Halves go around the converter; kernels see them in the order of `scalar.components`."""
    layout = scalar.components(name)
    channels = len(layout)
    case = Case(given="fp16", precision="int16", pixels=name, channels=channels, kernels=channels, kernel=(1, 1))
    case = replace(case, output="int16", out=case.size, converter=scalar.Cvt(7, 9, 2))
    weights = np.eye(channels, dtype=np.float16).reshape(channels, 1, 1, channels)
    halves = {"src_precision": 2, "dst_precision": 2, "x1_op": {"enable": 0}}
    loadable = build(case, {"out_precision": 2}, halves)
    loadable = with_output(loadable, case, np.dtype(np.float16), scalar.stream(weights, NV_FULL, True, 0))
    program = decode(loadable)
    rng = np.random.default_rng(0)
    height, width = case.size
    lines = np.zeros((2, height, width * channels * 2 + 3), np.uint8)
    values = rng.normal(0, 50, (2, height, width, channels)).astype(np.float16)
    lines[:, :, :-3] = values.view(np.uint8).reshape(2, height, -1)
    result = run(program, lines.view(np.int8).reshape(2, 1, 1, -1))
    order = [low // 16 for _, _, low, _ in layout]
    np.testing.assert_array_equal(result, values[..., order].transpose(0, 3, 1, 2))


def test_a_batch_takes_several_images(tmp_path: Path) -> None:
    case = Case(batch=3, kernels=20, channels=17)
    program = decode(build(case))
    inputs = inputs_of(case, program)
    operation = program.operations[0]
    seen: dict[int, NDArray[Any]] = {}
    run(program, inputs, batch=1, on_step=lambda op, values, first: seen.update({first: values}))
    assert operation.destination.batch == 3
    assert sorted(seen) == [0, 3]
    np.testing.assert_array_equal(np.concatenate([seen[0], seen[3]]), expected_of(case, inputs))
    write_steps(program, {program.inputs[0].name: inputs}, tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "op001_dst.npy"), expected_of(case, inputs))
    with pytest.raises(EmulationError, match="multiple of 3"):
        run(program, inputs[:4])


def test_saturating_accumulator() -> None:
    """The least number at 2**17 + 64 taps passes 2**47: saturated behind every step of 64, in the array's order.

    (-2**15)**2 * (2**17 + 64) = 2**47 + 2**36 saturates to 2**47 - 1; then 64 products of -2**15 * (2**15 - 1) bring it
    down by 2**36 - 2**21.
    """
    rows = 2**17 + 128
    weights = np.full((1, rows // 64, 1, 64), -(1 << 15), np.int16)
    weights[0, -1] = (1 << 15) - 1
    case = Case(given="int16", precision="int16", output="int16", channels=64, kernels=1, kernel=(rows // 64, 1))
    case = replace(case, size=(rows // 64, 1), out=(1, 1), truncate=31, out_converter=scalar.Cvt(0, 1, 2))
    loadable = build(case)
    blobs = tuple(replace(b, data=weights.tobytes()) if b.name == str(WEIGHTS) else b for b in loadable.blobs)
    program = decode(replace(loadable, blobs=blobs))
    source = program.operations[0].source
    assert isinstance(source, ConvOperation)
    prepared = conv.prepare(source, weights.view(np.uint8).reshape(-1), NV_FULL)
    assert len(prepared.steps) == rows // 64  # type: ignore[union-attr]
    inputs = np.full((1, 64, rows // 64, 1), -(1 << 15), np.int16)
    total = (2**47 - 1) - 64 * 2**15 * (2**15 - 1)
    bias = int(bias_of(case)[0]) << 2
    expected = scalar.out_converter(scalar.clamp(scalar.rnd(total, 31), 32) + bias, case.out_converter, 16)
    assert run(program, inputs).item() == expected


class TestComputedConstants:
    """Weights and operands that an input holds: unpacked for each image."""

    def test_weights_from_an_input(self) -> None:
        case = Case(kernels=5, channels=17, compressed=False)
        loadable = build(case)
        size = weights_of(case).size
        bound = tensor("weights", WEIGHTS, (1, 1, size), 1, np.dtype(np.int8), size, image=True)
        memories = tuple(
            replace(m, flags=1 | 4, contents=(), offsets=()) if m.id == WEIGHTS else m for m in loadable.memories
        )
        program = decode(replace(loadable, memories=memories, tensors=(*loadable.tensors, bound)))
        (operation,) = program.operations
        assert program.computed == {operation.index}
        inputs = inputs_of(case, decode(loadable))
        seeds = [replace(case, seed=seed) for seed in (4, 5)]
        packed = np.stack([scalar.stream(weights_of(one), NV_FULL, False, 0).view(np.int8) for one in seeds])
        both = {"in": inputs, "weights": packed.reshape(2, 1, 1, -1)}
        result = run_tensors(program, both)["out"]
        for image in range(2):
            alone = replace(loadable, blobs=weights_in(loadable, packed[image].view(np.uint8)))
            np.testing.assert_array_equal(result[image : image + 1], run(decode(alone), inputs[image : image + 1]))
        assert not np.array_equal(packed[0], packed[1])

    def test_operands_from_an_input(self) -> None:
        case = Case(kernels=33, channels=4)
        loadable = build(case)
        bound = tensor("bias", OPERANDS, (1, 1, 33), 1, np.dtype(np.int16), 66, image=True)
        memories = tuple(
            replace(m, flags=1 | 4, contents=(), offsets=()) if m.id == OPERANDS else m for m in loadable.memories
        )
        program = decode(replace(loadable, memories=memories, tensors=(*loadable.tensors, bound)))
        inputs = inputs_of(case, decode(loadable))
        biases = np.stack([bias_of(case), -bias_of(case) // 2]).reshape(2, 1, 1, -1)
        result = run_tensors(program, {"in": inputs, "bias": biases})["out"]
        np.testing.assert_array_equal(result[:1], expected_of(case, inputs)[:1])
        blobs = tuple(replace(b, data=biases[1].tobytes()) if b.name == str(OPERANDS) else b for b in loadable.blobs)
        np.testing.assert_array_equal(result[1:], run(decode(replace(loadable, blobs=blobs)), inputs[1:]))

    @pytest.mark.parametrize("ordered", [True, False])
    def test_weights_from_an_operation(self, ordered: bool) -> None:
        """One kernel of one tap and 32 channels is an atom: an SDP operation copies it to where the weights stand."""
        case = Case(channels=32, kernels=1, kernel=(1, 1), out=(4, 5))
        operations, memories, bound, result = parts_of(case, {}, {})
        atom = cube(SIZES, (32, 1, 1), 32, 1)
        copy = {"lut_index": -1, "batch_num": 1, "out_cvt": {"scale": 1}}
        writer = Engine.SDP, copy, {"src_data": atom, "dst_data": {**atom, "address": WEIGHTS}}
        kernels = tensor("kernels", SIZES, (32, 1, 1), 32, np.dtype(np.int8), 32)
        memories |= {WEIGHTS: 32, MASK: 32, SIZES: 32}
        program = decode(loadable_of([writer, *operations], memories, [bound, kernels], [result], ordered))
        assert program.computed == {2}
        races = [warning for warning in program.warnings if "race" in warning]
        assert bool(races) is not ordered
        assert all("operation 2 (SDP) reads" in race and "operation 0 (SDP) writes" in race for race in races)
        given = [replace(case, seed=seed) for seed in (7, 8)]
        inputs = inputs_of(case, decode(build(case)))
        values = np.stack([weights_of(one).reshape(32, 1, 1) for one in given])
        both = run_tensors(program, {"in": inputs, "kernels": values})["out"]
        for image, one in enumerate(given):
            alone = replace(one, seed=case.seed)
            blobs = weights_in(build(alone), scalar.stream(weights_of(one), NV_FULL, False, 0))
            expected = run(decode(replace(build(alone), blobs=blobs)), inputs[image : image + 1])
            np.testing.assert_array_equal(both[image : image + 1], expected)

    def test_constants_that_nobody_provides(self) -> None:
        loadable = build(Case())
        memories = tuple(
            replace(m, flags=1, contents=(), offsets=()) if m.id == WEIGHTS else m for m in loadable.memories
        )
        with pytest.raises(LoadableError, match=r"constants stand in memory 3, which holds nothing"):
            decode(replace(loadable, memories=memories))


def weights_in(loadable: Loadable, packed: NDArray[np.uint8]) -> tuple[Any, ...]:
    """Return the blobs of `loadable` with other weights."""
    return tuple(replace(b, data=packed.tobytes()) if b.name == str(WEIGHTS) else b for b in loadable.blobs)


@pytest.mark.parametrize(
    ("case", "fields", "message"),
    [
        (Case(), {"conv_mode": 2}, r"conv_mode is 2, expected 0 to 1, all that the firmware knows"),
        (Case(), {"pixel_mapping": 1}, r"pixel_mapping is 1, expected 0 to 0"),
        (Case(), {"data_format": 37}, r"data_format is 37, expected 0 to 36"),
        (Case(), {"mean_format": 2}, r"mean_format is 2"),
        (Case(), {"weight_format": 2}, r"weight_format is 2"),
        (Case(), {"data_reuse": 2}, r"data_reuse is 2, expected 0 or 1, all that the register holds"),
        (Case(), {"data_bank": 16}, r"data_bank and weight_bank is \(16, 1\), .* at most 16 together"),
        (Case(compressed=True), {"data_bank": 15}, r"is \(15, 1\), expected at least 1 each and at most 15"),
        (Case(), {"weight_bank": 0}, r"is \(1, 0\), expected at least 1 each"),
        (Case(), {"batch": 33}, r"batch is 33, expected 1 to 32"),
        (Case(), {"batch": 0}, r"batch is 0, expected 1 to 32"),
        (Case(), {"in_precision": 1}, r"features are not widened"),
        (Case(target=NV_SMALL), {"batch": 2}, r"batch is 2, expected 1: nv_small takes one image at a time"),
        (Case(target=NV_SMALL), {"conv_mode": 1}, r"nv_small has no Winograd"),
        (Case(target=NV_SMALL, compressed=True), {}, r"nv_small has no weight compression"),
        (Case(pixels="A8B8G8R8"), {"batch": 2}, r"of an image is \(0, 2\)"),
        (Case(pixels="A8B8G8R8"), {"in_precision": 1}, r"in_precision is int16, expected int8, which A8B8G8R8 has"),
        (Case(pixels="R8", channels=1, precision="int16", output="int16"), {}, r"in_cvt enabled"),
        (Case(pixels="A8B8G8R8", kernel=(2, 9)), {"post_extension": 1}, r"at most 32 for post_extension"),
        (Case(pixels="A8B8G8R8"), {"pad_x_right": 0, "conv_stride_x": 6}, r"columns that an image's kernels read"),
        (Case(pixels="A8B8G8R8"), {"input_channel_csc": 3}, r"expected 4 each, as A8B8G8R8 has"),
    ],
)
def test_refusals(case: Case, fields: dict[str, int], message: str) -> None:
    with pytest.raises(EmulationError, match=message):
        decode(build(case, fields), case.target)


def test_images_ignore_dilation() -> None:
    """The sequencer has none for images (docs/hardware/convolution.md, "Order"); the numbers are those without."""
    case = Case(pixels="A8B8G8R8", pad=(1, 1))
    program = decode(build(case, {"dilation_x": 2, "dilation_y": 3}))
    inputs = inputs_of(case, program)
    np.testing.assert_array_equal(run(program, inputs), expected_of(case, inputs))
    (warning,) = program.warnings
    assert warning.endswith("(CONV): dilation is (3, 2); the hardware ignores it for images and with Winograd")


@pytest.mark.parametrize(
    ("case", "fields", "message"),
    [
        (Case(given="int16", precision="int16"), {}, r"dst_precision is 0, expected what int16 behind a convolution"),
        (Case(), {"src_precision": 1}, r"src_precision is int16, expected the convolution's int8"),
        (Case(), {"src_precision": 2}, r"dst_precision is int8, expected fp16 or int16"),
        (Case(batch=2), {"batch_num": 1}, r"batch_num is 1, expected the convolution's 2"),
        (Case(batch=2, output="int16"), {}, r"src_precision with multi-batch"),
        (Case(), {"conv_mode": 1}, r"conv_mode is 1, expected the convolution's 0"),
    ],
)
def test_refusals_of_the_sdp(case: Case, fields: dict[str, int], message: str) -> None:
    with pytest.raises(EmulationError, match=message):
        decode(build(case, sdp=fields))


def changed_surface(loadable: Loadable, fields: Mapping[str, Any]) -> Loadable:
    """Return `loadable` with other fields of the convolution's surfaces."""
    surfaces = next(blob for blob in loadable.blobs if len(blob.data) == 2 * SURFACE_BYTES)
    raw = bytearray(surfaces.data)
    fill(np.ndarray((), SURFACES[Engine.CONV], raw), fields)  # type: ignore[arg-type]
    blobs = tuple(replace(blob, data=bytes(raw)) if blob is surfaces else blob for blob in loadable.blobs)
    return replace(loadable, blobs=blobs)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"offset_u": 1 << 40}, r"second plane: bytes"),
        ({"offset_u": -1}, r"second plane: bytes -1 to"),
        ({"in_line_uv_stride": 1 << 20}, r"second plane: bytes"),
        ({"src_data": {"line_stride": 1 << 20}}, r"source: bytes"),
    ],
)
def test_planes_stay_in_their_memory(fields: dict[str, Any], message: str) -> None:
    loadable = build(Case(pixels="Y8___U8V8_N444", channels=3))
    with pytest.raises(LoadableError, match=message):
        decode(changed_surface(loadable, fields))


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"wmb_data": {"size": 1}}, EmulationError, r"wmb size is 1, expected at least \d+: the hardware would wait"),
        ({"wgs_data": {"size": 3}}, EmulationError, r"wgs size is 3, expected at least 4"),
        ({"wmb_data": {"offset": 40, "size": 1 << 30}}, LoadableError, r"wmbs: bytes 40 to"),
        ({"weight_data": {"size": 1 << 30}}, LoadableError, r"weights: bytes 0 to"),
    ],
)
def test_compressed_windows_are_checked(fields: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        decode(changed_surface(build(Case(compressed=True)), fields))


def test_group_sizes_that_do_not_fit() -> None:
    """The WGS says when the weights of a group are there: a wrong one would hang the hardware."""
    loadable = build(Case(compressed=True))
    blobs = tuple(replace(b, data=b"\x01\0\0\0") if b.name == str(SIZES) else b for b in loadable.blobs)
    program = decode(replace(loadable, blobs=blobs))
    with pytest.raises(EmulationError, match=r"operation 0 \(CONV\): weight group 0 has 1 bytes by the WGS"):
        run(program, inputs_of(Case(compressed=True), program))


def test_batch_strides_are_checked() -> None:
    with pytest.raises(LoadableError, match=r"source: bytes 0 to"):
        decode(build(Case(batch=2), {"batch_stride": 1 << 20}))
    with pytest.raises(LoadableError, match=r"destination: bytes 0 to"):
        decode(build(Case(batch=2), sdp={"batch_stride": 1 << 20}))


def test_work_of_a_batch_is_counted() -> None:
    """2 images of 5 kernels x 2 x 2 x 4 taps at 3 x 2 places: 960 multiply-accumulates.

    Besides, 32 for each byte of 2 x 4 x 5 atoms that are read and 2 x 3 x 2 that are written: 54,208.
    """
    with pytest.raises(EmulationError, match=r"the time of 54208 multiply-accumulates, the limit is 54207"):
        decode(build(Case(batch=2)), limits=Limits(macs=54207))


def test_comparing_writes_nothing() -> None:
    """EQL in Y sets a status register (NV_NVDLA_sdp.cpp, SdpWdmaThread)."""
    program = decode(build(Case(), sdp={"y_op": {"enable": 1, "type": 2, "mode": 0, "alu_type": 3, "precision": 1}}))
    (operation,) = program.operations
    assert isinstance(operation, SdpOperation)
    assert operation.only_compares
    assert "writes no memory" in program.warnings[0]
    assert not run(program, inputs_of(Case(), program)).any()


def leaves(dtype: np.dtype[Any], offset: int = 0) -> Iterator[tuple[int, int]]:
    """Yield (offset, size) of each number of a descriptor."""
    for inner, place, *_ in (dtype.fields or {}).values():
        if inner.fields:
            yield from leaves(inner, offset + place)
        else:
            yield offset + place, inner.base.itemsize


@given(cases(), st.data())
def test_damaged_descriptors(case: Case, data: st.DataObject) -> None:
    """Whatever stands in the descriptors: a clean error, or a program that runs within its buffers."""
    loadable = build(replace(case, target=NV_FULL, compressed=data.draw(st.booleans())))
    blobs = {blob.name: bytearray(blob.data) for blob in loadable.blobs}
    # The last three are dependency graph, operations and surfaces.
    names = sorted(blobs, key=int)[-3:]
    for _ in range(data.draw(st.integers(1, 3))):
        number = data.draw(st.integers(0, 1))
        engine = (Engine.CONV, Engine.SDP)[number]
        dtype, stride, name = data.draw(
            st.sampled_from(
                [(OPERATIONS[engine], OPERATION_BYTES, names[1]), (SURFACES[engine], SURFACE_BYTES, names[2])]
            )
        )
        fields = st.sampled_from(list(leaves(dtype)))
        offset, size = data.draw(fields)
        value = data.draw(st.one_of(st.sampled_from([0, 1, 2, 255, -1, 1 << (8 * size - 1)]), st.integers(0, 255)))
        place = number * stride + offset
        blobs[name][place : place + size] = (value % (1 << (8 * size))).to_bytes(size, "little")
    changed = tuple(replace(blob, data=bytes(blobs.get(blob.name, blob.data))) for blob in loadable.blobs)
    with contextlib.suppress(EmulationError, LoadableError):
        program = decode(replace(loadable, blobs=changed), limits=Limits(macs=10**7, memory=1 << 24))
        run(program, np.zeros((program.inputs[0].cube.batch, *program.inputs[0].shape), program.inputs[0].dtype))


def test_a_batch_of_tensors_lies_where_their_size_or_stride_says() -> None:
    loadable = build(Case(batch=2))
    bound = loadable.tensors[0]
    assert decode(loadable).inputs[0].cube.batch_stride == bound.size // 2
    strides = (*bound.strides[:3], 2048, 0, 0, 0, 0)
    with pytest.raises(LoadableError, match=r"tensor 'in': ends at byte \d+ of memory 1"):
        decode(replace(loadable, tensors=(replace(bound, strides=strides), *loadable.tensors[1:])))
    with pytest.raises(LoadableError, match=r"tensor 'in': batch 0"):
        decode(replace(loadable, tensors=(replace(bound, n=0), *loadable.tensors[1:])))


@pytest.mark.parametrize(("name", "place"), [("in", 0), ("out", 1)])
@pytest.mark.parametrize("fields", [{"n": 1 << 23}, {"h": 1 << 23, "strides": (1, 0, 0, 0, 0, 0, 0, 0)}])
def test_tensors_need_the_memory_of_all_their_elements(name: str, place: int, fields: dict[str, Any]) -> None:
    """Strides of 0 fit into any memory, yet each element of a tensor is one of the inputs or outputs."""
    tensors = list(build(Case()).tensors)
    tensors[place] = replace(tensors[place], **fields)
    with pytest.raises(LoadableError, match=rf"tensor '{name}': .* expected at least the \d+ bytes"):
        decode(replace(build(Case()), tensors=tuple(tensors)))


@pytest.mark.parametrize("name", ["A2B10G10R10", "Y8___U8V8_N444"])
def test_tensors_that_are_no_arrays_are_bytes(name: str) -> None:
    """Ten bits are no element, and two planes no cube: such a tensor is given byte by byte."""
    layout = scalar.components(name)
    given = "int16" if layout[0][3] == 10 else "int8"
    case = Case(given=given, precision=given, output=given, pixels=name, channels=len(layout))
    loadable = build(case)
    bound = replace(loadable.tensors[0], pixel_format=int(ImageFormat[name]), c=len(layout), h=4, w=5)
    program = decode(replace(loadable, tensors=(bound, loadable.tensors[1])))
    assert program.inputs[0].shape == (1, 1, bound.size)
    inputs = inputs_of(case, program)
    np.testing.assert_array_equal(run(program, inputs), expected_of(case, inputs))
