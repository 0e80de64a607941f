"""Images as `nvdla_runtime` reads them, and the values that it makes of their pixels.

It reads binary PGM for one channel, JPEG for three (decoded as blue, green, red). For a pixel p of channel z it makes
``floor(p * 127 / 255 + 0.5)`` in int8, whatever ``--mean`` and ``--normalize`` say, and ``half((p - mean[z]) / N)`` in
fp16, N an 8-bit number (nvdla/sw ``umd/apps/runtime/TestUtils.cpp``, ``DlaImageUtils.cpp``). Its ``half`` rounds to
nearest, ties away from zero (half 1.11; compared with that header for 8,960 pixels, means and divisors).
"""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.configuration.stock_runtime import normalize_option
from nvdla_quant.errors import DatasetError
from nvdla_quant.hardware.targets import Precision
from nvdla_quant.images.preprocess import STOCK_STEPS, Feeding, Preprocessing
from nvdla_quant.runtime.base import DeviceValues

_FP16_STEP = 2.0**-10
"""Largest relative distance of two neighbouring normal fp16 values."""


@dataclass(frozen=True)
class StockFeeding:
    """What `nvdla_runtime` makes of pixels.

    Attributes
    ----------
    precision : Precision
        Of the loadable.
    channels : int
        1 or 3.
    mean : tuple[float, ...]
        One value a channel in the device's order; ``--mean``, fp16 only.
    normalize : int
        1 to 255; ``--normalize``, fp16 only.
    """

    precision: Precision
    channels: int
    mean: tuple[float, ...]
    normalize: int

    @classmethod
    def of(cls, precision: Precision, feeding: Feeding, preprocessing: Preprocessing) -> "StockFeeding":
        """Return the feeding of a variant.

        Raises
        ------
        DatasetError
            The preprocessing is beyond what the runtime's options can say.
        """
        channels = preprocessing.channel_count
        plain = (0.0,) * channels
        if precision is Precision.INT8 or feeding == "stock-runtime":
            return cls(precision, channels, plain, 1)
        normalize = normalize_option(preprocessing.scale)
        mean = np.broadcast_to(np.asarray(preprocessing.mean, np.float64), (channels,))
        return cls(precision, channels, tuple(map(float, mean)), normalize)

    @property
    def suffix(self) -> str:
        """Suffix of the image files; the runtime goes by it, in lower case."""
        return ".pgm" if self.channels == 1 else ".jpg"

    def options(self) -> list[str]:
        """Return the runtime's options; int8 ignores them, and so they are not given."""
        if self.precision is Precision.INT8 or (not any(self.mean) and self.normalize == 1):
            return []
        return ["--mean", ",".join(f"{value:.9g}" for value in self.mean), "--normalize", str(self.normalize)]

    def table(self) -> DeviceValues:
        """Return the value that each pixel becomes, ``(channels, 256)``."""
        pixels = np.arange(256)
        if self.precision is Precision.INT8:
            return np.tile(np.floor(pixels * STOCK_STEPS + 0.5).astype(np.int8), (self.channels, 1))
        mean = np.array(self.mean, np.float32)[:, None]
        return _to_half((pixels.astype(np.float32) - mean) / np.float32(self.normalize))

    def pixels(self, inputs: DeviceValues) -> NDArray[np.uint8]:
        """Return the images ``(n, channels, h, w)`` that become `inputs` on the device.

        Raises
        ------
        DatasetError
            The runtime cannot feed such values; the message says which image and value.
        """
        if inputs.shape[1] < self.channels or inputs[:, self.channels :].any():
            raise DatasetError(
                f"nvdla_runtime: inputs of {inputs.shape[1]} channels, expected {self.channels} of them to hold values"
            )
        table = self.table().astype(np.float64)
        found = np.empty((len(inputs), self.channels, *inputs.shape[2:]), np.uint8)
        for channel, values in enumerate(table):
            asked = inputs[:, channel].astype(np.float64)
            order = np.unique(values, return_index=True)
            upper = np.clip(np.searchsorted(order[0], asked), 1, len(order[0]) - 1)
            nearest = upper - (asked - order[0][upper - 1] <= order[0][upper] - asked)
            made = order[0][nearest]
            tolerance = 0 if self.precision is Precision.INT8 else _FP16_STEP * np.abs(asked)
            wrong = np.abs(made - asked) > tolerance
            if wrong.any():
                image = int(np.argmax(wrong.reshape(len(inputs), -1).any(axis=1)))
                value = asked[image][wrong[image]][0]
                raise DatasetError(
                    f"nvdla_runtime: image {image}: the value {value:g} in channel {channel} cannot be fed; of a pixel "
                    f"it makes {values.min():g} to {values.max():g} in {len(order[0])} steps. Use feeding stock-runtime"
                )
            found[:, channel] = order[1][nearest]
        return found

    def encode(self, pixels: NDArray[np.uint8]) -> bytes:
        """Return the file of one image ``(channels, h, w)``: PGM, or JPEG of quality 100 without subsampling."""
        if self.channels == 1:
            height, width = pixels.shape[1:]
            return b"P5\n%d %d\n255\n" % (width, height) + pixels.tobytes()
        from PIL import Image  # Here: PGM needs none of it.

        stream = BytesIO()
        # The runtime decodes to blue, green, red: its channel 0 is the file's blue.
        Image.fromarray(np.ascontiguousarray(pixels[::-1].transpose(1, 2, 0))).save(
            stream, "JPEG", quality=100, subsampling=0
        )
        return stream.getvalue()

    def fed(self, file: bytes, channels: int) -> DeviceValues:
        """Return what the device gets of a file, ``(channels, h, w)``; channels that the image lacks are 0."""
        from PIL import Image

        decoded = np.asarray(Image.open(BytesIO(file)))
        planes = decoded[None] if self.channels == 1 else decoded.transpose(2, 0, 1)[::-1]
        table = self.table()
        values = np.zeros((channels, *planes.shape[1:]), table.dtype)
        for channel, plane in enumerate(planes):
            values[channel] = table[channel][plane]
        return values


def _to_half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """Round to fp16, ties away from zero."""
    nearest = values.astype(np.float16)
    outer = np.nextafter(nearest, np.copysign(np.float16(np.inf), values.astype(np.float16)))
    exact = values.astype(np.float64)
    is_tie = np.abs(outer.astype(np.float64) - exact) == np.abs(exact - nearest.astype(np.float64))
    return np.where(is_tie, outer, nearest)
