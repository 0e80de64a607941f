"""Convolutions against a scalar loop, with weights packed by an independent description of the stream."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nvdla_quant.emulator.integer import conv
from nvdla_quant.emulator.integer.kernels import Kernel, possible_kernels
from nvdla_quant.emulator.operations import Converter, ConvOperation, Cube, Fp16, Operand, SdpUnit
from nvdla_quant.emulator.pixels import PIXELS
from nvdla_quant.emulator.run import run
from nvdla_quant.emulator.weights import unpack_weights
from nvdla_quant.hardware.targets import NV_FULL, NV_SMALL, Precision, Target
from nvdla_quant.loadable.structs import FORMAT_A8B8G8R8, SdpAlu
from tests import scalar_model as scalar
from tests.emulated import INPUT, conv_program, packed_cube
from tests.kernels import using
from tests.scalar_model import accumulators, stream

CI = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
IDENTITY = Converter(0, 1, 0)
PASSING = SdpUnit("x1", None, None, None, False, 0, 20, False, False)


@st.composite
def cases(draw: st.DrawFn) -> dict[str, object]:
    target = draw(st.sampled_from([NV_SMALL, NV_FULL]))
    image = draw(st.booleans())
    stride = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    dilation = (1, 1) if image else (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    return {
        "target": target,
        "image": image,
        "channels": 4 if image else draw(st.sampled_from([1, 7, 8, 9, 31, 33, 70])),
        "kernels": draw(st.sampled_from([1, 5, 8, 9, 33])),
        "kernel": (draw(st.integers(1, 4)), draw(st.integers(1, 4))),
        "size": (draw(st.integers(1, 7)), draw(st.integers(1, 7))),
        "out": (draw(st.integers(1, 4)), draw(st.integers(1, 4))),
        "stride": stride,
        "dilation": dilation,
        "pad": (draw(st.integers(0, 3)), draw(st.integers(0, 3))),
        "pad_value": draw(st.integers(-128, 127)),
        "post_extension": draw(st.integers(0, 2)) if image else 0,
        "truncate": draw(st.sampled_from([0, 0, 3])),
        "converted": draw(st.booleans()),
        "signed": not image or draw(st.booleans()),
        "seed": draw(st.integers(0, 1 << 30)),
    }


@CI
@given(cases())
def test_convolution(case: dict[str, object]) -> None:
    """Random shapes, strides, dilations, paddings, input converters, packings: equal to the loop."""
    rng = np.random.default_rng(int(str(case["seed"])))
    target, image = case["target"], bool(case["image"])
    assert isinstance(target, Target)
    channels, kernels = int(str(case["channels"])), int(str(case["kernels"]))
    kernel, size, out, stride, dilation, pad = (
        case[name] for name in ("kernel", "size", "out", "stride", "dilation", "pad")
    )
    weights = rng.integers(-128, 128, (kernels, *kernel, channels)).astype(np.int8)  # type: ignore[misc]
    if image:
        weights[..., 3] = 0
    atom = 4 if image else target.feature_atom_bytes
    source = packed_cube(INPUT, (channels, *size), atom)  # type: ignore[misc]
    cvt = scalar.Cvt(*rng.integers(-300, 300, 2).tolist(), int(rng.integers(0, 10))) if case["converted"] else None
    truncate, shift = int(str(case["truncate"])), 8
    bias = rng.integers(-(1 << 15), 1 << 15, kernels)
    unit = SdpUnit("x1", SdpAlu.SUM, Operand(channels=bias), None, False, 2, 0, True, False)
    program = conv_program(
        source, weights, out, stride, dilation, pad, int(str(case["pad_value"])),
        stream(weights, target, image, int(str(case["post_extension"]))), target, (unit,), Converter(3, 77, shift),
        image, int(str(case["post_extension"])), truncate,
        None if cvt is None else Converter(cvt.offset, cvt.scale, cvt.shift), bool(case["signed"]),
    )  # type: ignore[arg-type]  # fmt: skip
    inputs = rng.integers(-128, 128, (3, channels, *size)).astype(np.int8)  # type: ignore[misc]
    plain = inputs.astype(np.int64)
    if cvt is not None:
        raw = plain if case["signed"] else inputs.view(np.uint8).astype(np.int64)
        convert = np.vectorize(lambda v: scalar.clamp(scalar.clamp(
            scalar.rnd((int(v) - cvt.offset) * cvt.scale, cvt.shift), 17), 8))  # fmt: skip
        plain = convert(raw)
    sums = accumulators(plain, weights, out, stride, dilation, pad, int(str(case["pad_value"])))  # type: ignore[arg-type]
    expected = np.empty(sums.shape, np.int8)
    for place in np.ndindex(sums.shape):
        value = scalar.clamp(scalar.rnd(int(sums[place]), truncate), 32)
        value = scalar.x_unit(value, scalar.XUnit("sum", int(bias[place[1]]), 2, None, 0, "relu"))
        expected[place] = scalar.out_converter(value, scalar.Cvt(3, 77, shift))
    for kernel in possible_kernels():
        with using(kernel):
            prepared = replace(program)
            np.testing.assert_array_equal(run(prepared, inputs), expected, kernel)
            np.testing.assert_array_equal(run(prepared, inputs, batch=1), expected, kernel)


def test_long_reductions_are_split_and_exact() -> None:
    """All products -128 * -128: 3 * 3 * 512 of them make 75,497,472 > 2**24, which one float32 sum cannot hold."""
    weights = np.full((2, 3, 3, 512), -128, np.int8)
    source = packed_cube(INPUT, (512, 3, 3), 32)
    program = conv_program(
        source, weights, (1, 1), (1, 1), (1, 1), (0, 0), 0, weights.reshape(-1).view(np.uint8), NV_FULL, (PASSING,),
        IDENTITY,
    )  # fmt: skip
    inputs = np.full((1, 512, 3, 3), -128, np.int8)
    inputs[0, 0, 0, 0] = -127
    with using(Kernel.FLOAT32):
        prepared = conv.prepare(
            program.operations[0].source,  # type: ignore[arg-type]
            weights.reshape(-1).view(np.uint8),
            NV_FULL,
        )
    assert len(prepared.weights) == 5
    for kernel in possible_kernels():
        with using(kernel):
            # (75,497,472 - 128) / 2**20 = 71.9999 -> 72.
            assert run(replace(program), inputs)[0, :, 0, 0].tolist() == [72, 72]


def test_sums_beyond_32_bits_go_through_float32() -> None:
    """131,072 products of -128 * -128 make 2**31, the first that is no int32; 131,071 of them fit."""
    for depth, kind in ((131072, conv.Convolution), (131071, conv.DotConvolution)):
        weights = np.full((1, 1, 1, depth), -128, np.int8)
        source = packed_cube(INPUT, (depth, 1, 1), 32)
        packed = stream(weights, NV_FULL, False, 0)
        program = conv_program(
            source, weights, (1, 1), (1, 1), (1, 1), (0, 0), 0, packed, NV_FULL, (PASSING,), IDENTITY
        )
        with using(possible_kernels()[0]):
            prepared = conv.prepare(program.operations[0].source, packed, NV_FULL)  # type: ignore[arg-type]
        assert isinstance(prepared, kind if len(possible_kernels()) > 1 else conv.Convolution)


def test_unused_image_channels_are_left_out() -> None:
    """Gray images stand in four components; three of them have no weights and cost nothing."""
    weights = np.zeros((20, 5, 5, 4), np.int8)
    weights[..., 0] = 1
    operation = ConvOperation(
        0, Cube(INPUT, 0, 4, 28, 28, 4, 1, 112, 0), None, 20, 24, 24, 5, 5, PIXELS[FORMAT_A8B8G8R8], 0, (1, 1),
        (1, 1), 0, 0, 0,
        Precision.INT8, None, True, 0,
    )  # type: ignore[arg-type]  # fmt: skip
    for kernel in possible_kernels():
        with using(kernel):
            prepared = conv.prepare(operation, stream(weights, NV_SMALL, True, 0), NV_SMALL)
        assert prepared.reader.lanes is not None
        assert prepared.reader.lanes.places[:, 0].tolist() == [0]
        if kernel is Kernel.FLOAT32:
            assert [block.shape for block in prepared.weights] == [(25, 20)]
        else:  # 5 rows of 5 elements each, in steps of 4 bytes or 2 words.
            steps = {4: 2, 2: 3}[prepared.weights.shape[-1]]
            assert prepared.weights[..., 0].size == 5 * steps * len(prepared.start)


@pytest.mark.parametrize("post_extension", [0, 1, 2])
def test_unpacked_weights_are_what_was_packed(post_extension: int) -> None:
    weights = np.random.default_rng(post_extension).integers(-128, 128, (40, 7, 3, 4)).astype(np.int8)
    source = packed_cube(INPUT, (4, 9, 9), 4)
    packed = stream(weights, NV_FULL, True, post_extension)
    program = conv_program(
        source, weights, (1, 1), (1, 1), (1, 1), (0, 0), 0, packed, NV_FULL, (PASSING,), IDENTITY, True, post_extension
    )
    operation = program.operations[0].source
    assert isinstance(operation, ConvOperation)
    assert np.array_equal(unpack_weights(operation, packed, NV_FULL), weights)


@pytest.mark.parametrize(("channels", "image"), [(4, True), (5, False), (37, False), (64, False)])
def test_fast_fp16(channels: int, image: bool) -> None:
    """Against float64: what is left is the rounding to half, 2**-11 of the value, and of float32 sums."""
    rng = np.random.default_rng(channels)
    weights = rng.normal(0, 0.3, (19, 3, 2, channels)).astype(np.float16)
    if image:
        weights[..., 1] = 0
    source = packed_cube(INPUT, (channels, 9, 8), 4 if image else 16, 2)
    bias = Operand(channels=rng.normal(size=19).astype(np.float16))
    unit = SdpUnit("x1", SdpAlu.SUM, bias, None, False, 0, 0, True, False)
    program = conv_program(
        source, weights, (5, 4), (2, 2), (1, 1), (1, 1), 0, stream(weights, NV_FULL, image, 0), NV_FULL, (unit,),
        IDENTITY, image,
    )  # fmt: skip
    inputs = rng.normal(0, 2, (3, channels, 9, 8)).astype(np.float16)
    padded = np.pad(inputs.astype(np.float64), ((0, 0), (0, 0), (1, 2), (1, 2)))
    sums = np.zeros((3, 19, 5, 4))
    for y, x, ky, kx in np.ndindex(5, 4, 3, 2):
        sums[:, :, y, x] += padded[:, :, 2 * y + ky, 2 * x + kx] @ weights[:, ky, kx].astype(np.float64).T
    assert bias.channels is not None
    expected = np.maximum(sums + bias.channels.astype(np.float64)[:, None, None], 0)
    result = run(program, inputs, fp16=Fp16.FAST).astype(np.float64)
    np.testing.assert_allclose(result, expected, rtol=2**-10, atol=1e-4)
