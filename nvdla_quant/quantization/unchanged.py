"""Equalize a network by what its calibration images say of bounds, and prove that it still computes the same."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import NetworkError
from nvdla_quant.execution.fp32 import Images, Reference, images_at_once
from nvdla_quant.network.graph import Network
from nvdla_quant.quantization.equalization import Equalized, equalize, watched_tensors

TOLERANCE = 1e-4
"""Largest difference of a score, over the largest score where that is above 1."""


def equalize_checked(original: Network, folded: Network, sets: Sequence[Images], *, threads: int = 1) -> Equalized:
    """Equalize `folded`, and compare its scores with those of the `original` network on all images.

    Parameters
    ----------
    original : Network
        As it was trained.
    folded : Network
        The same with normalisation folded.
    sets : Sequence[Images]
        Calibration images in the network's own domain.
    threads : int
        Threads of onnxruntime.

    Raises
    ------
    NetworkError
        A score is another: where, and by how much.
    """
    equalized = equalize(folded, largest_magnitudes(folded, watched_tensors(folded), sets, threads))
    check_unchanged(original, equalized.network, sets, threads)
    return equalized


def largest_magnitudes(
    network: Network, tensors: Sequence[str], sets: Sequence[Images], threads: int = 1
) -> dict[str, NDArray[np.float32]]:
    """Return the largest magnitude of each channel of `tensors` over all images, (channels,)."""
    largest = {name: np.zeros(network.tensors[name].chw[0], np.float32) for name in tensors}
    if not tensors:
        return largest
    reference = Reference(network, tensors, threads=threads, batch_size=images_at_once(network))
    for images in sets:
        for batch in reference.batches(images):
            for name, values in batch.items():
                channels = np.abs(values).reshape(len(values), len(largest[name]), -1)
                np.maximum(largest[name], channels.max(axis=(0, 2)), out=largest[name])
    return largest


def check_unchanged(original: Network, changed: Network, sets: Sequence[Images], threads: int = 1) -> None:
    """Raise a `NetworkError` where a score differs by more than `TOLERANCE` on any of the images.

    A top class then differs only where the two best scores are closer than twice that.
    """
    names = [output.name for output in original.outputs]
    networks = [
        Reference(network, names, threads=threads, batch_size=images_at_once(original))
        for network in (original, changed)
    ]
    for number, images in enumerate(sets):
        done = 0
        for old, new in zip(*(reference.batches(images) for reference in networks), strict=True):
            for name in names:
                allowed = TOLERANCE * max(1.0, float(np.abs(old[name]).max()))
                differences = np.abs(new[name] - old[name]).reshape(len(old[name]), -1).max(axis=1)
                if not differences.max() <= allowed:
                    worst = int(differences.argmax())
                    raise NetworkError(
                        f"network {original.name!r}: equalized, its output {name!r} differs by "
                        f"{differences[worst]:.3g} for image {done + worst} of calibration set {number}, expected at "
                        f"most {allowed:.3g}; use preparation fold, and report the network"
                    )
            done += len(old[names[0]])
