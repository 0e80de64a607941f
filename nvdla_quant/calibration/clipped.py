"""Where chosen thresholds clip so much that the scores of the network collapse: the trap of relative entropy.

Relative entropy sees how often values are clipped, not by how much. Where most of a tensor is small and the rest far
away, as behind a ReLU of few images, it gives up the rest, with most of the tensor's energy.

What a tensor loses alone does not tell whether that matters. So tensors that lose much are found in their histograms,
and then the network is computed with these clipped and rounded, and all else in fp32, over a few of the calibration
images. What counts is the SQNR of its scores; beside it stands that with the thresholds of least squared error.
Thresholds are those of the fixed table: in a group of tensors that share a scale the largest wins, which clips less.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.calibration.histogram import Histogram
from nvdla_quant.calibration.rounded import STEPS, mse_threshold, resolved, rounded, upper_edges
from nvdla_quant.calibration.stream import ROOM
from nvdla_quant.execution.fp32 import Images, Reference, activation_bytes
from nvdla_quant.execution.simulated import Simulation, quantized_tensors
from nvdla_quant.execution.sqnr import sqnr
from nvdla_quant.network.graph import Network
from nvdla_quant.table.consistency import unify
from nvdla_quant.table.table import CalibrationTable

LOSS = 10.0
"""dB that a threshold of least squared error must gain, for a tensor and for the scores, to be worth a word: ten times
less noise."""

COLLAPSE = 20.0
"""SQNR of the scores in dB below which a network no longer says the same: noise of 1 % of their energy.

That is a cosine of 0.995, the limit below which `verify` blames the table. By all tensors in int8, with entropy, the
shipped ResNet-20 has 31 dB after 500 images or 8, and loses no accuracy; after 2 to 4 images 13 to 17 dB, and loses 10
points. By the percentile 99.9 it has 25 dB and loses none, by 99 it has 14 dB and loses a point. LeNet has 38 dB after
500 images and loses none, after 8 images 5 dB and a point."""

IMAGES = 32
"""Calibration images that a judgement takes."""

_STRIDE = 16
"""Of so many candidates one is tried in looking for tensors that lose much: 0.5 dB, in a sixteenth of the time."""

TOLD = 3
"""Warnings that a network gets, of the tensors that lose most."""

_BY_RULE = ("Pooling", "Softmax")
"""Layers whose scale is not their own: their input's, and 1 / 127."""


@dataclass(frozen=True)
class Clipped:
    """A tensor that a threshold of least squared error would keep much better.

    Attributes
    ----------
    tensor : str
        Its name in the network.
    threshold, sqnr : float
        The chosen threshold, and the SQNR in dB of the tensor clipped and rounded by it.
    best_threshold, best_sqnr : float
        Those of least squared error.
    lost : float
        Share of the tensor's energy, the sum of its squares, that is beyond the chosen threshold.
    """

    tensor: str
    threshold: float
    sqnr: float
    best_threshold: float
    best_sqnr: float
    lost: float


def collapses(
    network: Network,
    images: Images,
    histograms: Mapping[str, Histogram],
    thresholds: Mapping[str, float],
    *,
    threads: int = 1,
) -> tuple[str, ...]:
    """Return warnings for tensors that are clipped too far, the worst first, where together they ruin the scores.

    Parameters
    ----------
    network : Network
        The original network.
    images : Images
        Calibration images; the first `IMAGES` are taken, and none where no tensor loses much.
    histograms : Mapping[str, Histogram]
        By tensor.
    thresholds : Mapping[str, float]
        The chosen ones, of all tensors, before the table is fixed.
    threads : int
        Threads that compute the scores.
    """
    suspects = find_clipped(network, histograms, consistent(network, thresholds))
    if not suspects:
        return ()
    chosen, best = scores_sqnr(network, images[:IMAGES], thresholds, suspects, threads)
    if chosen >= COLLAPSE or best - chosen < LOSS:
        return ()
    worst = sorted(suspects, key=lambda one: one.sqnr - one.best_sqnr)[:TOLD]
    return tuple(_warning(one, len(suspects), chosen, best) for one in worst)


def consistent(network: Network, thresholds: Mapping[str, float]) -> CalibrationTable:
    """Return the table that comes of `thresholds`, with consistent scales."""
    return unify(network, CalibrationTable({name: value / STEPS for name, value in thresholds.items()}))[0]


def find_clipped(network: Network, histograms: Mapping[str, Histogram], table: CalibrationTable) -> tuple[Clipped, ...]:
    """Return the tensors whose SQNR is `LOSS` or more below the best, and whose threshold is smaller than the best.

    Of those that the hardware writes in int8. A larger threshold, that of a group, rounds coarsely and clips nothing.
    """
    found = []
    for tensor in quantized_tensors(network):
        layer = network.by_name.get(tensor)
        if tensor not in histograms or (layer is not None and layer.kind in _BY_RULE):
            continue
        histogram, chosen = histograms[tensor], table[tensor] * STEPS
        tried = upper_edges(histogram)[::-_STRIDE]
        sqnr = _sqnr(histogram, chosen)
        if rounded(histogram, tried).sqnr.max() - sqnr >= LOSS and (best := mse_threshold(histogram)) > chosen:
            lost = lost_energy(histogram, chosen)
            found.append(Clipped(tensor, chosen, sqnr, best, _sqnr(histogram, best), lost))
    return tuple(found)


def lost_energy(histogram: Histogram, threshold: float) -> float:
    """Return the share of the energy that clipping takes: ``x**2 - T**2`` of the values beyond, over all ``x**2``."""
    counts, end = resolved(histogram), threshold / histogram.bin_width
    edges = np.arange(counts.size + 1, dtype=np.float64)
    beyond = np.maximum(edges, end)
    lost = (counts * (np.diff(beyond**3) / 3 - end**2 * np.diff(beyond))).sum()
    return float(lost / (counts * np.diff(edges**3) / 3).sum())


def scores_sqnr(
    network: Network,
    images: NDArray[np.float32],
    thresholds: Mapping[str, float],
    suspects: tuple[Clipped, ...],
    threads: int = 1,
) -> tuple[float, float]:
    """Return the SQNR in dB of the scores, with the chosen and with the best thresholds of `suspects`.

    Scores are what a final Softmax reads, or the output; of several outputs the worst counts.
    """
    names = [network.logits.name] if network.logits is not None else [output.name for output in network.outputs]
    batch = max(1, ROOM // activation_bytes(network))
    exact = Reference(network, names, threads=threads, batch_size=batch).run(images)
    found = []
    for better in ({}, {one.tensor: one.best_threshold for one in suspects}):
        table = consistent(network, {**thresholds, **better})
        rounding = [one.tensor for one in suspects]
        # Without a name, it is gone before the next one is made.
        made = Simulation(network, table, None, names, threads=threads, batch_size=batch, rounded=rounding).run(images)
        found.append(min(sqnr(exact[name], values) for name, values in made.items()))
    return found[0], found[1]


def _sqnr(histogram: Histogram, threshold: float) -> float:
    """Return the SQNR of a tensor under a threshold, in dB."""
    return float(rounded(histogram, np.array([threshold / histogram.bin_width])).sqnr[0])


def _warning(one: Clipped, count: int, chosen: float, best: float) -> str:
    many = "one tensor" if count == 1 else f"{count} tensors"
    return (
        f"tensor {one.tensor!r}: clipped at {one.threshold:.4g}, which takes {one.lost:.0%} of its energy; its SQNR is "
        f"{one.sqnr:.1f} dB, and {one.best_sqnr:.1f} dB at {one.best_threshold:.4g}, of least squared error; {many} "
        f"clipped so: the scores of the network have {chosen:.1f} dB instead of {best:.1f} dB; calibrate with method "
        "mse, or with more images"
    )
