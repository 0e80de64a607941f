"""One image file to pixels: every kind of file by one rule, which docs/sweeps.md states, or refused."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import DatasetError

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = NDArray[np.uint8]
"""One image (height, width, channels): one channel is gray, three are red, green, blue."""

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Of the files that are images where a folder is given without a list; upper case counts too."""


def read_image(path: Path) -> Pixels:
    """Decode an image file to uint8 (height, width, 1 or 3).

    ================= ====================================================================================
    kind              rule
    ================= ====================================================================================
    gray              stays gray; 1, 2 and 4 bits are stretched to 0..255
    16 bits a channel the high byte, value // 256, as OpenCV's ``imread`` takes it of a PNG
    palette           the colours of the palette, three channels
    alpha             dropped, in a palette too, and never blended with a background, as by ``imread``
    CMYK              each ink c and black k: (255 - c) * (255 - k) / 255; no colour profile is applied
    orientation       what EXIF notes is ignored: pixels as they are stored, as torchvision's and ImageNet's
                      benchmarks take them (``imread`` turns the image)
    several images    the first
    ================= ====================================================================================

    Raises
    ------
    DatasetError
        The file is missing, damaged, no image, or has 32 bits a channel, signed or floating-point numbers.
    """
    from PIL import Image  # Here: only folders of pictures need it.

    try:
        with Image.open(path) as image:
            pixels = _reduction(image, path)(image)
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: no such file") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        # Pillow reports damaged files by any of these, a broken PNG by SyntaxError.
        raise DatasetError(f"{path}: cannot be read as an image: {error}") from error
    return pixels[..., np.newaxis] if pixels.ndim == 2 else pixels


def _reduction(image: "Image", path: Path) -> Callable[["Image"], Pixels]:
    """Return what makes bytes of an opened image: gray of 16 bits is what Pillow does not convert itself."""
    # Pillow before 11 opens a gray PNG of 16 bits as 32-bit integers, of which PNG has none.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return _high_byte
    if image.mode.startswith(("I", "F")):
        raise DatasetError(
            f"{path}: pixels of type {image.mode} (signed, 32 bits or floating point), whose range says nothing about "
            "black and white; expected 8 or 16 bits a channel, unsigned: convert the file"
        )
    return _as_gray if image.mode in ("1", "L", "LA") else _as_rgb


def _high_byte(image: "Image") -> Pixels:
    return (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)


def _as_gray(image: "Image") -> Pixels:
    return np.asarray(image.convert("L"), np.uint8)


def _as_rgb(image: "Image") -> Pixels:
    return np.asarray(image.convert("RGB"), np.uint8)
