"""One definition of preprocessing: geometry, values, and the device's domain."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdla_quant.errors import ConfigError, DatasetError
from nvdla_quant.images.preprocess import (
    Preprocessing,
    check_geometry,
    normalise,
    stock_input_scale,
    to_device,
    to_pixels,
)

GRAY = Preprocessing("gray", scale=1 / 256)
ALL = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)


def _colour() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (6, 8, 3)).astype(np.uint8)


def test_channel_orders() -> None:
    image = _colour()
    np.testing.assert_array_equal(to_pixels(image, Preprocessing("rgb")), image.transpose(2, 0, 1))
    np.testing.assert_array_equal(to_pixels(image, Preprocessing("bgr")), image[..., ::-1].transpose(2, 0, 1))
    gray = to_pixels(image, Preprocessing("gray"))
    assert gray.shape == (1, 6, 8)
    # ITU-R 601: 0.299 R + 0.587 G + 0.114 B; Pillow's fixed point is within one of the rounded value.
    luma = image @ np.array([0.299, 0.587, 0.114])
    assert np.abs(gray[0] - luma).max() <= 1
    for flat in (image[..., 0], image[..., :1]):
        np.testing.assert_array_equal(to_pixels(flat, Preprocessing("gray"))[0], image[..., 0])
        np.testing.assert_array_equal(to_pixels(flat, Preprocessing("bgr")), np.stack([image[..., 0]] * 3))


def test_resize_and_crop() -> None:
    image = np.zeros((30, 41, 3), np.uint8)
    assert to_pixels(image, Preprocessing("rgb", resize=(7, 9))).shape == (3, 7, 9)
    # shorter side 30 -> 20, the other 41 * 20 / 30 = 27.33, rounded down
    assert to_pixels(image, Preprocessing("rgb", resize_shorter=20)).shape == (3, 20, 27)
    assert to_pixels(image.transpose(1, 0, 2), Preprocessing("rgb", resize_shorter=20)).shape == (3, 27, 20)
    assert to_pixels(image, Preprocessing("rgb", resize_shorter=20, crop=(18, 18))).shape == (3, 18, 18)
    marked = np.arange(5 * 6, dtype=np.uint8).reshape(5, 6)
    # An odd rest: one row above, two below; one column left, two right.
    np.testing.assert_array_equal(to_pixels(marked, Preprocessing("gray", crop=(2, 3)))[0], marked[1:3, 1:4])
    with pytest.raises(DatasetError, match=r"5 x 6 pixels \(height x width\) before the crop to 5 x 7"):
        to_pixels(marked, Preprocessing("gray", crop=(5, 7)))


def test_reduction_does_not_alias() -> None:
    # A triangle filter twice as wide averages a checkerboard to gray; plain bilinear sampling would not have to.
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    reduced = to_pixels(board, Preprocessing("gray", resize=(16, 16)))
    assert np.abs(reduced[:, 2:-2, 2:-2].astype(int) - 127.5).max() < 8


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros((1, 4, 4, 3), np.uint8)]
)
def test_other_arrays_are_refused(image: np.ndarray) -> None:
    with pytest.raises(DatasetError, match="expected uint8"):
        to_pixels(image, GRAY)


def test_geometry_error_names_both_shapes() -> None:
    check_geometry((1, 28, 28), (1, 28, 28))
    with pytest.raises(DatasetError, match=r"\(1, 28, 28\) pixels .* input is \(3, 224, 224\); change channels"):
        check_geometry((1, 28, 28), (3, 224, 224))


def test_normalise_subtracts_the_channel_mean_first() -> None:
    pixels = np.array([[[[10]], [[20]], [[30]]]], np.uint8)
    values = normalise(pixels, Preprocessing("bgr", mean=(104.0, 117.0, 123.0), scale=0.5))
    assert values.dtype == np.float32
    assert values.ravel().tolist() == [-47.0, -48.5, -46.5]
    assert normalise(pixels, Preprocessing("rgb", mean=(10.0,))).ravel().tolist() == [0.0, 10.0, 20.0]
    np.testing.assert_array_equal(normalise(ALL, GRAY), ALL.astype(np.float32) / 256)  # exact: a power of two
    with pytest.raises(DatasetError, match=r"expected uint8 \(n, 1, height, width\)"):
        normalise(pixels, GRAY)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"channels": "yuv"}, "'yuv', expected gray, rgb or bgr"),
        ({"resize": (4, 4), "resize_shorter": 4}, "both given"),
        ({"resize": (0, 4)}, "resize is"),
        ({"resize_shorter": 0}, "resize_shorter is 0"),
        ({"crop": (4, -1)}, "crop is"),
        ({"mean": (1.0, 2.0)}, "expected one finite number or 1"),
        ({"channels": "rgb", "mean": (1.0, 2.0)}, "expected one finite number or 3"),
        ({"mean": (math.nan,)}, "mean is"),
        ({"scale": 0.0}, "scale is 0.0"),
        ({"scale": math.inf}, "scale is inf"),
    ],
)
def test_impossible_preprocessing(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Preprocessing(**{"channels": "gray", **fields})  # type: ignore[arg-type]


def test_preprocessing_of_a_configuration_entry() -> None:
    full = {"channels": "bgr", "resize": [256, 256], "crop": [224, 224], "mean": [104, 117, 123], "scale": 1}
    assert Preprocessing.from_config(full) == Preprocessing(
        "bgr", resize=(256, 256), crop=(224, 224), mean=(104.0, 117.0, 123.0)
    )
    assert Preprocessing.from_config({"channels": "gray"}) == Preprocessing("gray")
    assert Preprocessing.from_config({"channels": "rgb", "mean": 127, "resize": None}).mean == (127.0,)


def test_the_stock_runtime_gets_pixels_in_fp16_too() -> None:
    """With that feeding, mean and scale are folded into the network; applied again they would count twice."""
    fed = to_device(ALL, Preprocessing("gray", mean=(33.0,), scale=2.0), precision="fp16", feeding="stock-runtime")
    assert fed.dtype == np.float16
    assert fed.ravel().tolist() == ALL.ravel().tolist()


def test_stock_runtime_values() -> None:
    """`floor(pixel * 127 / 255 + 0.5)` in exact arithmetic (docs/hardware/calibration-table.md, "The input")."""
    expected = [math.floor(Fraction(int(p) * 127, 255) + Fraction(1, 2)) for p in ALL.ravel()]
    for preprocessing in (GRAY, Preprocessing("gray", mean=(33.0,), scale=2.0)):
        fed = to_device(ALL, preprocessing, precision="int8", feeding="stock-runtime")
        assert fed.dtype == np.int8
        assert fed.ravel().tolist() == expected
    # 255/127 = 2.00787 for a network that takes 0..255
    assert stock_input_scale(Preprocessing("gray")) == pytest.approx(2.0078740157)
    assert stock_input_scale(GRAY) == pytest.approx(2.0078740157 / 256)


@given(
    scale=st.floats(1e-4, 1e3),
    means=st.lists(st.floats(0, 255), min_size=3, max_size=3),
    factor=st.floats(1e-3, 10.0),
)
def test_int8_is_the_nearest_step_or_the_end_of_the_range(scale: float, means: list[float], factor: float) -> None:
    preprocessing = Preprocessing("rgb", mean=tuple(means), scale=factor)
    pixels = np.broadcast_to(ALL.reshape(256, 1, 1, 1), (256, 3, 1, 1))
    fed = to_device(pixels, preprocessing, precision="int8", scale=scale)
    exact = normalise(pixels, preprocessing).astype(np.float64) / scale
    assert np.abs(fed - np.clip(exact, -128, 127)).max() <= 0.5 * (1 + 1e-12)
    assert np.all(np.diff(fed[:, 0, 0, 0].astype(int)) >= 0)


def test_int8_ties_go_to_even() -> None:
    pixels = np.array([1, 3, 5], np.uint8).reshape(1, 1, 1, 3)
    assert to_device(pixels, Preprocessing("gray"), precision="int8", scale=2.0).ravel().tolist() == [0, 2, 2]
    shifted = Preprocessing("gray", mean=(6.0,))
    assert to_device(pixels, shifted, precision="int8", scale=2.0).ravel().tolist() == [-2, -2, 0]


def test_fp16_is_the_rounded_network_input() -> None:
    preprocessing = Preprocessing("gray", mean=(33.3,), scale=0.017)
    fed = to_device(ALL, preprocessing, precision="fp16")
    assert fed.dtype == np.float16
    np.testing.assert_array_equal(fed, normalise(ALL, preprocessing).astype(np.float16))


def test_added_channels_are_zero() -> None:
    pixels = np.full((2, 3, 4, 5), 200, np.uint8)
    for precision, scale in (("int8", 2.0), ("fp16", None)):
        fed = to_device(pixels, Preprocessing("rgb"), precision=precision, scale=scale, channels=4)  # type: ignore[arg-type]
        assert fed.shape == (2, 4, 4, 5)
        assert np.all(fed[:, :3] == (100 if precision == "int8" else 200))
        assert not fed[:, 3].any()
    with pytest.raises(DatasetError, match="the images have 3 channels, the loadable's input takes 1"):
        to_device(pixels, Preprocessing("rgb"), precision="fp16", channels=1)


def test_scale_is_given_exactly_where_it_counts() -> None:
    with pytest.raises(ConfigError, match="int8, quantized needs a scale"):
        to_device(ALL, GRAY, precision="int8")
    with pytest.raises(ConfigError, match="int8, stock-runtime does not take a scale"):
        to_device(ALL, GRAY, precision="int8", feeding="stock-runtime", scale=1.0)
    with pytest.raises(ConfigError, match="fp16, quantized does not take a scale"):
        to_device(ALL, GRAY, precision="fp16", scale=1.0)
    for scale in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="expected a finite number above 0"):
            to_device(ALL, GRAY, precision="int8", scale=scale)
    with pytest.raises(DatasetError, match="expected uint8"):
        to_device(ALL.astype(np.int16), GRAY, precision="fp16")
