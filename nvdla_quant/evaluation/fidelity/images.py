"""How far one output lies from fp32's, image by image: all that figures of fidelity are made of."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import DumpError
from nvdla_quant.evaluation.accuracy import agreement

Numbers = NDArray[np.float64]
AT_ONCE = 8 << 20
"""Values that are looked at together: what is computed in passing does not need the room of all images."""
_HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True, eq=False)
class ImageErrors:
    """One output beside fp32's; each array is (n,), in real units.

    Attributes
    ----------
    signal, noise : NDArray[float64]
        Sums of squares: of fp32's values, and of the differences to them.
    cosine : NDArray[float64]
        Of the angle between both as vectors; 1 where both are zero, 0 where one is.
    mean_error, max_error : NDArray[float64]
        Mean and largest absolute difference.
    saturated : NDArray[float64]
        Share of the values at an end of the range: -128 or 127, in fp16 beyond the largest finite one.
    agreement : NDArray[float64]
        Share of the pixels with the same highest channel as fp32's, ties by expectation (see `accuracy.agreement`);
        NaN where that was not asked for.
    sound, zero, flat : NDArray[bool]
        Whether all values are finite, all are zero, all are equal.
    exact_zero, exact_flat : NDArray[bool]
        The same of fp32's.
    digest, exact_digest : NDArray[bytes]
        Of the values: images with the same output have the same.
    """

    signal: Numbers
    noise: Numbers
    cosine: Numbers
    mean_error: Numbers
    max_error: Numbers
    saturated: Numbers
    agreement: Numbers
    sound: NDArray[np.bool_]
    zero: NDArray[np.bool_]
    flat: NDArray[np.bool_]
    exact_zero: NDArray[np.bool_]
    exact_flat: NDArray[np.bool_]
    digest: NDArray[np.bytes_]
    exact_digest: NDArray[np.bytes_]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.signal)

    def __getitem__(self, chosen: NDArray[np.bool_]) -> "ImageErrors":
        """Return the images that are chosen."""
        return ImageErrors(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})


def joined(parts: Sequence[ImageErrors]) -> ImageErrors:
    """Return the images of several parts of a data set, in their order."""
    names = [field.name for field in fields(ImageErrors)]
    return ImageErrors(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def errors_of(
    values: NDArray[np.generic], step: float | None, exact: NDArray[np.float32], *, argmax: bool
) -> ImageErrors:
    """Return how far an output lies from fp32's on each image.

    Parameters
    ----------
    values : ndarray
        ``(n, c, h, w)`` or ``(n, ...)`` of as many values, in the device's domain: int8, or float16.
    step : float or None
        Real value of one step of int8; None where the values are real.
    exact : NDArray[float32]
        fp32's, ``(n, ...)``: an output of another shape has the same values in the same order.
    argmax : bool
        Whether the highest channel of each pixel counts: axis 1 of `exact`.

    Raises
    ------
    DumpError
        They have different numbers of images or values, or no channel can be the highest of one.
    """
    if len(values) != len(exact) or values[:1].size != exact[:1].size:
        raise DumpError(
            f"an output of shape {values.shape}, but fp32's is {exact.shape}; are they of one network and data set?"
        )
    if argmax and (exact.ndim < 2 or exact.shape[1] < 2):
        raise DumpError(
            f"an output of shape {exact.shape} has one channel, and argmax asks which is the highest; remove argmax"
        )
    return joined([_errors(values[part], step, exact[part], argmax) for part in _parts(exact)])


def _parts(exact: NDArray[np.float32]) -> Iterator[slice]:
    at_once = max(1, AT_ONCE // max(exact[:1].size, 1))
    yield from (slice(start, start + at_once) for start in range(0, max(len(exact), 1), at_once))


def _errors(values: NDArray[np.generic], step: float | None, exact: NDArray[np.float32], argmax: bool) -> ImageErrors:
    """Return the errors of a few images."""
    n = len(exact)
    raw = values.reshape(n, -1)
    real = raw.astype(np.float64) * (1.0 if step is None else step)
    wanted = exact.reshape(n, -1).astype(np.float64)
    # What is not finite is told by `sound`, and leaves no figure.
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.abs(real - wanted)
        signal, power = np.square(wanted).sum(axis=1), np.square(real).sum(axis=1)
        cosine = _cosine((real * wanted).sum(axis=1), signal, power)
    ends = (raw == -128) | (raw == 127) if raw.dtype == np.int8 else np.abs(real) >= _HALF
    return ImageErrors(
        signal=signal,
        noise=np.square(off).sum(axis=1),
        cosine=cosine,
        mean_error=off.mean(axis=1),
        max_error=off.max(axis=1),
        saturated=ends.mean(axis=1),
        agreement=_same_channel(real.reshape(exact.shape), exact) if argmax else np.full(n, np.nan),
        sound=np.all(np.isfinite(real), axis=1),
        zero=np.all(real == 0, axis=1),
        flat=(real == real[:, :1]).all(axis=1),
        exact_zero=np.all(wanted == 0, axis=1),
        exact_flat=(wanted == wanted[:, :1]).all(axis=1),
        digest=_digests(real),
        exact_digest=_digests(wanted),
    )


def _cosine(product: Numbers, signal: Numbers, power: Numbers) -> Numbers:
    """Return the cosines of vectors by their products and squares."""
    both = np.sqrt(signal) * np.sqrt(power)
    found: Numbers = np.divide(product, both, where=both > 0, out=((signal == 0) & (power == 0)).astype(np.float64))
    return found


def _same_channel(real: Numbers, exact: NDArray[np.float32]) -> Numbers:
    """Return the share of each image's pixels with the same highest channel."""
    n, channels = exact.shape[:2]
    pixels = [np.moveaxis(part.reshape(n, channels, -1), 1, 2).reshape(-1, channels) for part in (real, exact)]
    shares: Numbers = agreement(*pixels).reshape(n, -1).mean(axis=1)
    return shares


def _digests(rows: Numbers) -> NDArray[np.bytes_]:
    """Return a digest of each row; 0.0 and -0.0 are the same."""
    plain = np.ascontiguousarray(rows + 0.0)
    return np.array([hashlib.blake2b(row.tobytes(), digest_size=12).hexdigest() for row in plain], "S24")
