"""What nvdla_runtime makes of pixels, and the images that make it feed given values."""

import struct
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nvdla_quant.errors import DatasetError
from nvdla_quant.hardware.targets import Precision
from nvdla_quant.images.preprocess import Preprocessing, to_device
from nvdla_quant.runtime.stock_images import StockFeeding

INT8, FP16 = Precision.INT8, Precision.FP16


def gray(precision: Precision, mean: float = 0, normalize: int = 1) -> StockFeeding:
    return StockFeeding(precision, 1, (mean,), normalize)


def test_int8_is_the_workflow_s_own_stock_feeding() -> None:
    """Two definitions of one formula, from the same source (TestUtils.cpp): they must not drift apart."""
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    fed = to_device(pixels, Preprocessing("gray"), precision="int8", feeding="stock-runtime")
    assert gray(INT8).table()[0].tolist() == fed.ravel().tolist()


@pytest.mark.parametrize(
    ("pixel", "mean", "normalize", "bits"),
    [
        # half 1.11 compiled from nvdla/sw's header: (pixel - mean) / normalize as it rounds.
        (0, 104.00698793, 1, 0xD680),  # -104.00699 is nearest to -104.
        (130, 127.5, 77, 10280),  # 0.0324675
        (255, 0.5, 1, 23540),  # 254.5, exact
        (1, 0, 255, 7172),  # 0.00392157
    ],
)
def test_fp16_values(pixel: int, mean: float, normalize: int, bits: int) -> None:
    expected = np.float16(np.float32(pixel - np.float32(mean)) / np.float32(normalize))
    (value,) = struct.unpack("<e", struct.pack("<H", bits))
    assert abs(float(expected) - value) <= abs(value) * 2**-11, "the bits above are those of the formula"
    assert gray(FP16, mean, normalize).table()[0, pixel].view(np.uint16) == bits


def test_fp16_ties_go_away_from_zero() -> None:
    """255 - 1/16 lies halfway between the fp16 values 254.875 and 255 (steps of 1/8 from 128 on)."""
    table = gray(FP16, 0.0625).table()[0]
    assert table[255] == 255
    assert np.float16(254.9375) == 255, "to even as well"
    assert table[254] == 254, "253.9375 lies between 253.875 and 254"
    assert gray(FP16, 0.1875).table()[0][255] == np.float16(254.875), "254.8125 goes up, to even would give 254.75"


@given(st.integers(0, 2**32 - 1))
def test_images_give_back_int8_values(seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 128, (2, 1, 5, 7)).astype(np.int8)
    feeding = gray(INT8)
    for image, asked in zip(feeding.pixels(values), values, strict=True):
        assert np.array_equal(feeding.fed(feeding.encode(image), 1), asked)


def test_images_give_back_fp16_pixels_with_mean_and_normalize() -> None:
    preprocessing = Preprocessing("gray", mean=(33.3,), scale=1 / 64)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 1, 6, 6)).astype(np.uint8)
    feeding = StockFeeding.of(FP16, "quantized", preprocessing)
    asked = to_device(pixels, preprocessing, precision="fp16", channels=4)
    assert np.array_equal(feeding.pixels(asked), pixels)
    assert feeding.options() == ["--mean", "33.3", "--normalize", "64"]
    assert gray(INT8, 33.3, 64).options() == [], "int8 ignores both"
    assert StockFeeding.of(FP16, "stock-runtime", preprocessing).options() == []


def test_what_cannot_be_fed_is_refused() -> None:
    with pytest.raises(
        DatasetError, match=r"image 1: the value -3 in channel 0 cannot be fed; .* 0 to 127 in 128 steps"
    ):
        gray(INT8).pixels(np.array([5, -3], np.int8).reshape(2, 1, 1, 1))
    with pytest.raises(DatasetError, match="expected 1 of them to hold values"):
        gray(INT8).pixels(np.ones((1, 4, 2, 2), np.int8))
    with pytest.raises(DatasetError, match=r"--normalize would be 256 .* expected a whole number from 1 to 255"):
        StockFeeding.of(FP16, "quantized", Preprocessing("gray", scale=1 / 256))
    with pytest.raises(DatasetError, match=r"would be 0\.017 "):
        StockFeeding.of(FP16, "quantized", Preprocessing("bgr", scale=1 / 0.017))


def test_pgm_is_what_the_runtime_s_own_reader_takes() -> None:
    """Exactly three header lines, maxval 255 (DlaImageUtils.cpp, parsePGMInfo), then the bytes, even line feeds."""
    file = gray(INT8).encode(np.array([[[10, 10, 35], [13, 0, 255]]], np.uint8))
    assert file == b"P5\n3 2\n255\n\x0a\x0a#\x0d\x00\xff"


def test_jpeg_is_blue_green_red_without_subsampling() -> None:
    feeding = StockFeeding(INT8, 3, (0, 0, 0), 1)
    pixels = np.zeros((3, 16, 16), np.uint8)
    pixels[0] = 250
    file = feeding.encode(pixels)
    picture = Image.open(BytesIO(file))
    assert [component[1:3] for component in picture.layer] == [(1, 1)] * 3
    assert np.asarray(picture)[8, 8].tolist()[2] > 240, "channel 0 of the device is the file's blue"
    fed = feeding.fed(file, 4)
    assert fed.shape == (4, 16, 16)
    assert fed[0].min() >= 123
    assert fed[1].max() <= 2
    assert not fed[3].any()
