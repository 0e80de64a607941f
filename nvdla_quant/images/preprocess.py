"""How a network sees an image: one definition for calibration, for the fp32 reference and for the device.

Geometry and channel order give uint8 pixels (`to_pixels`), which are what the workflow stores; the values follow from
them: ``(pixel - mean) * scale`` for the network (`normalise`), one number a pixel for the device (`to_device`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import ConfigError, DatasetError

ChannelOrder = Literal["gray", "rgb", "bgr"]
Feeding = Literal["quantized", "stock-runtime"]
Precision = Literal["fp16", "int8"]
Size = tuple[int, int]
"""(height, width), in pixels."""

STOCK_STEPS = 127 / 255
"""Int8 steps a pixel value that the stock runtime gives an INT8 network: floor(pixel * 127 / 255 + 0.5)."""


@dataclass(frozen=True)
class Preprocessing:
    """From a decoded image to the network's input: colours, resize, crop, then ``(pixel - mean) * scale``.

    Attributes
    ----------
    channels : {"gray", "rgb", "bgr"}
        The network's channel order. Gray is ITU-R 601 luma as Pillow computes it; a gray image repeats its channel.
    resize : (int, int) or None
        Resize to (height, width), whatever the proportions.
    resize_shorter : int or None
        Resize so that the shorter side has this length; the other is rounded down, as torchvision does.
    crop : (int, int) or None
        Cut (height, width) from the centre; an odd rest leaves the larger half below and to the right, as in Caffe.
    mean : tuple[float, ...]
        Subtracted from the pixels: one value, or one for each channel in the network's order.
    scale : float
        Multiplies the difference.

    Both resizes are Pillow's BILINEAR: a triangle filter that widens with the reduction, so it does not alias.
    """

    channels: ChannelOrder
    resize: Size | None = None
    resize_shorter: int | None = None
    crop: Size | None = None
    mean: tuple[float, ...] = (0.0,)
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        if self.channels not in ("gray", "rgb", "bgr"):
            raise ConfigError(f"preprocessing: channels is {self.channels!r}, expected gray, rgb or bgr")
        if self.resize is not None and self.resize_shorter is not None:
            raise ConfigError("preprocessing: resize and resize_shorter are both given; keep one")
        for key, sizes in (("resize", self.resize), ("resize_shorter", self.resize_shorter), ("crop", self.crop)):
            if sizes is not None and np.min(sizes) < 1:
                raise ConfigError(f"preprocessing: {key} is {sizes}, expected at least one pixel")
        if len(self.mean) not in (1, self.channel_count) or not all(math.isfinite(value) for value in self.mean):
            raise ConfigError(
                f"preprocessing: mean is {list(self.mean)}, expected one finite number or {self.channel_count}, one "
                f"for each channel in the order {self.channels}"
            )
        if not math.isfinite(self.scale) or self.scale == 0:
            raise ConfigError(f"preprocessing: scale is {self.scale}, expected a finite number other than 0")

    @property
    def channel_count(self) -> int:
        """Channels of the network's input."""
        return 1 if self.channels == "gray" else 3

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Preprocessing":
        """Record of a configuration entry; `mean` may be a number or a list, sizes are [height, width]."""
        values: dict[str, Any] = dict(config)
        mean = values.get("mean", 0.0)
        values["mean"] = tuple(float(value) for value in (mean if isinstance(mean, list | tuple) else [mean]))
        for key in ("resize", "crop"):
            values[key] = None if values.get(key) is None else tuple(values[key])
        return cls(**values)


def to_pixels(image: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Geometry and channel order: the pixels that the network is fed, before mean and scale.

    Parameters
    ----------
    image : NDArray[np.uint8]
        (height, width) or (height, width, 1) gray, or (height, width, 3) RGB.
    preprocessing : Preprocessing
        What to do; the colours are converted first.

    Returns
    -------
    NDArray[np.uint8]
        (channels, height, width) in the network's channel order.

    Raises
    ------
    DatasetError
        The array is no such image, or the crop is larger than the (resized) image.
    """
    gray = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1)
    if image.dtype != np.uint8 or not (gray or (image.ndim == 3 and image.shape[2] == 3)):
        raise DatasetError(f"image: {image.dtype} {image.shape}, expected uint8 (height, width[, 1 or 3])")
    from PIL import Image  # Here: what is done to images that were read needs none of it.

    picture = Image.fromarray(np.ascontiguousarray(image.reshape(image.shape[:2]) if gray else image))
    picture = picture.convert("L" if preprocessing.channels == "gray" else "RGB")
    size = _resized(preprocessing, picture.height, picture.width)
    if size != (picture.height, picture.width):
        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.atleast_3d(np.asarray(picture, np.uint8))
    if preprocessing.crop is not None:
        pixels = _centre(pixels, preprocessing.crop)
    if preprocessing.channels == "bgr":
        pixels = pixels[..., ::-1]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _resized(preprocessing: Preprocessing, height: int, width: int) -> Size:
    """Size of a `height` x `width` image after the resize."""
    if preprocessing.resize is not None:
        return preprocessing.resize
    if preprocessing.resize_shorter is not None:
        shorter = min(height, width)
        return (height * preprocessing.resize_shorter // shorter, width * preprocessing.resize_shorter // shorter)
    return (height, width)


def _centre(pixels: NDArray[np.uint8], crop: Size) -> NDArray[np.uint8]:
    """Cut `crop` from the centre of (height, width, channels)."""
    top, left = (pixels.shape[0] - crop[0]) // 2, (pixels.shape[1] - crop[1]) // 2
    if top < 0 or left < 0:
        raise DatasetError(
            f"image: {pixels.shape[0]} x {pixels.shape[1]} pixels (height x width) before the crop to "
            f"{crop[0]} x {crop[1]}; resize it to at least that size"
        )
    return pixels[top : top + crop[0], left : left + crop[1]]


def check_geometry(pixels: tuple[int, ...], network_input: tuple[int, int, int]) -> None:
    """Raise a `DatasetError` where pixels (channels, height, width) are not what the network's input takes."""
    if pixels != network_input:
        raise DatasetError(
            f"image: {pixels} pixels (channels, height, width) after preprocessing, but the network's input is "
            f"{network_input}; change channels, resize or crop of the preprocessing"
        )


def _check_pixels(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> None:
    """Raise a `DatasetError` where `pixels` are not (n, channels, height, width) bytes for `preprocessing`."""
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1] != preprocessing.channel_count:
        raise DatasetError(
            f"pixels: {pixels.dtype} {pixels.shape}, expected uint8 (n, {preprocessing.channel_count}, height, width)"
        )


def normalise(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Network input ``(pixel - mean) * scale`` in float32.

    Parameters
    ----------
    pixels : NDArray[np.uint8]
        (n, channels, height, width), as `to_pixels` gives them.
    preprocessing : Preprocessing
        Its mean and scale.

    Raises
    ------
    DatasetError
        The array is not of that type, or has another number of channels.
    """
    _check_pixels(pixels, preprocessing)
    mean = np.array(preprocessing.mean, np.float32).reshape(1, -1, 1, 1)
    difference: NDArray[np.float32] = pixels - mean
    return difference * np.float32(preprocessing.scale)


@dataclass(frozen=True)
class Normalised:
    """Pixels as the network reads them, normalised when a slice is asked for: float32 takes four times the memory.

    Attributes
    ----------
    pixels : NDArray[np.uint8]
        (n, channels, height, width), as `to_pixels` gives them.
    preprocessing : Preprocessing
        Mean and scale.

    Raises
    ------
    DatasetError
        As `normalise`.
    """

    pixels: NDArray[np.uint8]
    preprocessing: Preprocessing

    def __post_init__(self) -> None:
        """Refuse what `normalise` does."""
        _check_pixels(self.pixels, self.preprocessing)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, channels, height, width)."""
        return self.pixels.shape

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """Of the slices."""
        return np.dtype(np.float32)

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.pixels)

    def __getitem__(self, part: slice, /) -> NDArray[np.float32]:
        """Return a few of them, as `normalise` gives them."""
        return normalise(self.pixels[part], self.preprocessing)


def stock_input_scale(preprocessing: Preprocessing) -> float:
    """Scale of the network's input where the stock runtime feeds an INT8 loadable: 255/127 pixels a step.

    That runtime ignores the mean, which must then be folded into the first layer.
    """
    return preprocessing.scale / STOCK_STEPS


def to_device(
    pixels: NDArray[np.uint8],
    preprocessing: Preprocessing,
    *,
    precision: Precision,
    feeding: Feeding = "quantized",
    scale: float | None = None,
    channels: int | None = None,
) -> NDArray[np.int8] | NDArray[np.float16]:
    """Pixels in the device's domain.

    ========= ============= ==============================================================================
    precision feeding       value
    ========= ============= ==============================================================================
    int8      quantized     ``(pixel - mean) * scale / S``, rounded to nearest, ties to even, in -128..127
    int8      stock-runtime ``floor(pixel * 127 / 255 + 0.5)``: nvdla_runtime ignores mean and scale
    fp16      quantized     ``(pixel - mean) * scale``, rounded to nearest, ties to even
    fp16      stock-runtime the pixel: mean and scale are folded into the network
    ========= ============= ==============================================================================

    Parameters
    ----------
    pixels : NDArray[np.uint8]
        (n, channels, height, width), as `to_pixels` gives them.
    preprocessing : Preprocessing
        Mean and scale.
    precision, feeding
        As the variant says.
    scale : float, optional
        S, the input's scale in the calibration table: needed for int8 ``quantized`` and for nothing else.
    channels : int, optional
        Channels of the loadable's input tensor (4 for images); the ones added are zero, as the stock runtime leaves
        them.

    Returns
    -------
    NDArray[np.int8] or NDArray[np.float16]
        (n, channels, height, width).

    Raises
    ------
    ConfigError
        `scale` is missing, not positive, or given where it means nothing.
    DatasetError
        The pixels do not fit the preprocessing, or have more channels than the device takes.
    """
    quantized = precision == "int8" and feeding == "quantized"
    if quantized != (scale is not None):
        raise ConfigError(f"device input: {precision}, {feeding} {'needs' if quantized else 'does not take'} a scale")
    if scale is not None and not (math.isfinite(scale) and scale > 0):
        raise ConfigError(f"device input: scale is {scale}, expected a finite number above 0")
    _check_pixels(pixels, preprocessing)
    real = preprocessing.channel_count
    if channels is not None and channels < real:
        raise DatasetError(f"device input: the images have {real} channels, the loadable's input takes {channels}")

    # A pixel has 256 values: what the device gets for each is computed once and looked up.
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None, None], (256, real, 1, 1))
    values = normalise(ramp, preprocessing)
    table: NDArray[np.int8] | NDArray[np.float16]
    if precision == "fp16":
        table = (values if feeding == "quantized" else ramp).astype(np.float16)
    elif scale is not None:
        table = np.clip(np.rint(values.astype(np.float64) / scale), -128, 127).astype(np.int8)
    else:
        table = np.floor(ramp * STOCK_STEPS + 0.5).astype(np.int8)

    fed = np.zeros((len(pixels), channels or real, *pixels.shape[2:]), table.dtype)
    for channel in range(real):
        fed[:, channel] = table[pixels[:, channel], channel, 0, 0]
    return fed
