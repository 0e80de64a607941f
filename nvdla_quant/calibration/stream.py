"""Take in the activations of all images, a few images at a time: what is in memory does not depend on the batch.

A batch is cut into parts, which several threads compute and count. The result is that of whole batches, whatever the
parts and the threads: counts are sums, and the range of a histogram follows from the largest magnitude of each batch
(see `histogram`). Of the first batch that must be known before a value is counted, so the first batch is computed twice
where it takes several parts.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from threading import Lock

from nvdla_quant.calibration.histogram import Histogram
from nvdla_quant.calibration.minmax import Largest
from nvdla_quant.errors import NetworkError
from nvdla_quant.execution.fp32 import Images, Reference, activation_bytes

ROOM = 12 << 20
"""Bytes of activations that a part may have, and each thread has one part in memory; of one image there may be more.

It does not depend on the number of threads: were there a processor on which an image's values depend on how many are
computed at once, threads would still change nothing."""

Statistic = Histogram | Largest
"""What is known of the values of one tensor."""

Progress = Callable[[int, int], None]
"""Called with the number of images done, and of all."""


def stream(
    reference: Reference,
    images: Images,
    statistics: Mapping[str, Statistic],
    batch_size: int,
    *,
    threads: int = 1,
    progress: Progress | None = None,
) -> None:
    """Add the activations of all images to `statistics`.

    Parameters
    ----------
    reference : Reference
        Computes the tensors of `statistics`, on one thread.
    images : Images
        In the network's own domain; order matters, see `Histogram`.
    statistics : Mapping[str, Histogram or Largest]
        By tensor, nothing added yet.
    batch_size : int
        Images of a batch.
    threads : int
        Threads that share the parts of a batch.
    progress : Callable[[int, int], None], optional
        Called after each batch.

    Raises
    ------
    NetworkError
        A value is not finite, or the images do not fit the network.
    """
    reference.check(images)
    source = _Source(reference, images)
    most = max(1, ROOM // activation_bytes(reference.network))
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(images), batch_size):
            batch = range(start, min(start + batch_size, len(images)))
            parts = cut(batch, most)
            ranges = {name: one for name, one in statistics.items() if isinstance(one, Histogram) and not one.range}
            if ranges and len(parts) > 1:
                largest = {name: Largest() for name in ranges}
                source.add(largest, parts, pool)
                for name, histogram in ranges.items():
                    histogram.widen(largest[name].value)
            source.add(statistics, parts, pool)
            for one in statistics.values():
                one.end_batch()
            if progress is not None:
                progress(batch.stop, len(images))


def cut(batch: range, most: int) -> list[range]:
    """Return `batch` in as few parts as hold at most `most` each, about equally long."""
    count = -(-len(batch) // most)
    return [batch[len(batch) * part // count : len(batch) * (part + 1) // count] for part in range(count)]


class _Source:
    """Activations of images, computed and added to statistics by several threads."""

    def __init__(self, reference: Reference, images: Images) -> None:
        self._reference, self._images = reference, images
        self._locks = {name: Lock() for name in reference.tensors}

    def add(self, statistics: Mapping[str, Statistic], parts: Iterable[range], pool: Executor) -> None:
        """Add the values of the images in `parts` to the `statistics` of their tensors; the first error is raised."""
        for _ in pool.map(partial(self._add, statistics), parts):
            pass

    def _add(self, statistics: Mapping[str, Statistic], part: range) -> None:
        values = self._reference.at_once(self._images[part.start : part.stop])
        for name, statistic in statistics.items():
            try:
                with self._locks[name]:
                    statistic.add(values[name])
            except ValueError as error:
                which = f"image {part[0]}" if len(part) == 1 else f"images {part[0]} to {part[-1]}"
                raise NetworkError(
                    f"tensor {name!r}: {error} for {which} of the calibration; check the weights and the preprocessing"
                ) from error
