"""Accuracy of a classifier over a data set, with ties, intervals and the paired difference to fp32.

Quantized scores tie often: most int8 probabilities are 0. A sort would break each tie by class number, in favour of
some classes; here a tie counts with its expected value under random tie breaking, and the share of tied images is
reported.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import DatasetError, DumpError, ReportError
from nvdla_quant.jobs.files import write_json

Z95 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution: two-sided 95 % intervals."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval, in one unit: of accuracies shares (0 to 1) or their differences."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Figures:
    """What one tensor of scores is worth.

    Attributes
    ----------
    top1, top5 : Interval or None
        Share of images whose label is among the highest scores; top5 is None below 5 classes.
    ties, ties5 : float or None
        Share of images whose top-1 (top-5) set is not determined, see `boundary_ties`; ties5 as top5.
    agreement : float or None
        Expected share of images with the same top-1 as fp32, see `agreement`; None without fp32 scores.
    delta : Interval or None
        Top-1 minus that of fp32 on the same images, see `paired_difference`.
    mcnemar_p : float or None
        Exact two-sided p-value of "no worse and no better than fp32", see `mcnemar`.
    distinct_outputs : int
        Number of different score vectors.
    error : str or None
        Why the scores mean nothing, see `diagnose`. Then all above but `distinct_outputs` is None, since a number would
        pass for a result.
    """

    top1: Interval | None
    top5: Interval | None
    ties: float | None
    ties5: float | None
    agreement: float | None
    delta: Interval | None
    mcnemar_p: float | None
    distinct_outputs: int
    error: str | None


@dataclass(frozen=True)
class Subject:
    """What was measured: the names of a case and a variant, and what the variant's record fixes.

    The fp32 reference has no target, mode, calibrator, preparation, feeding, methods and compile backend.
    """

    model: str
    dataset: str
    target: str | None
    variant: str
    precision: str
    mode: str | None
    calibrator: str | None
    preparation: str | None
    feeding: str | None
    unified_scales: bool | None
    correction: str | None
    rounding: str | None
    search: str | None
    calibrate_backend: str | None
    compile_backend: str | None
    run_backend: str


def fp32_subject(model: str, dataset: str) -> Subject:
    """Return the subject of the fp32 reference of a case."""
    named = {"model": model, "dataset": dataset, "variant": "fp32", "precision": "fp32", "run_backend": "onnxruntime"}
    return Subject(**{field.name: named.get(field.name) for field in fields(Subject)})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Deviation:
    """How far a fast run is from the hardware, on images that were also run bit for bit.

    Attributes
    ----------
    images : tuple[int, ...]
        Their places in the data set.
    output : float
        Largest absolute difference in any output, in the device's domain.
    logits : float or None
        The same before the final Softmax, where that was recorded.
    """

    images: tuple[int, ...]
    output: float
    logits: float | None


def deviation_of(dumps: Mapping[str, NDArray[Any]]) -> Deviation | None:
    """Return what raw dumps say of images that were checked; None where they say nothing (see `runtime.base`)."""
    if "checked" not in dumps:
        return None
    logits = dumps.get("checked_logits")
    images = tuple(int(index) for index in dumps["checked"])
    return Deviation(images, float(dumps["checked_output"].max()), None if logits is None else float(logits.max()))


@dataclass(frozen=True)
class Accuracy:
    """One row of the comparison.

    Attributes
    ----------
    subject : Subject
        What was measured.
    n, classes : int
        Number of images and of classes.
    exactness : str
        What the run backend promises, in words (``bit-exact: ...``, ``fast: ...``).
    deviation : Deviation or None
        How far it is off where it does not promise bits and some images were checked.
    output : Figures
        From the network's output.
    logits : Figures or None
        From the tensor before the final Softmax, where it was recorded.
    """

    subject: Subject
    n: int
    classes: int
    exactness: str
    deviation: Deviation | None
    output: Figures
    logits: Figures | None


def measure(
    subject: Subject,
    labels: NDArray[Any],
    output: NDArray[Any],
    *,
    exactness: str,
    deviation: Deviation | None = None,
    logits: NDArray[Any] | None = None,
    reference: NDArray[Any] | None = None,
    ran: NDArray[np.bool_] | None = None,
) -> Accuracy:
    """Return the accuracy record of one variant.

    Parameters
    ----------
    subject : Subject
        What was measured.
    labels : ndarray
        ``[N]``, 0-based class numbers.
    output, logits : ndarray
        ``[N, C]`` or ``[N, C, 1, 1]``, of any number type; the device's domain will do, since only order counts.
    exactness : str
        What the run backend promises, in words.
    deviation : Deviation, optional
        How far it is off.
    reference : ndarray, optional
        Scores of fp32 for the same images in the same order; None for the reference itself.
    ran : ndarray of bool, optional
        Images that gave an output; the others count neither for the variant nor for fp32, and `exactness` says so.

    Raises
    ------
    DatasetError
        No labels, or one that is no class.
    DumpError
        Scores that are not one vector for each label, or of another number of classes.
    """
    if ran is not None and not ran.all():
        exactness += f"; {np.count_nonzero(~ran)} of {len(ran)} images gave no output and are left out"
        labels, output = labels[ran], output[ran]
        logits, reference = (None if part is None else part[ran] for part in (logits, reference))
    scores = as_scores(output, len(labels))
    classes = scores.shape[1]
    _check_labels(labels, classes)
    baseline = None
    if reference is not None:
        baseline = as_scores(reference, len(labels))
        if baseline.shape != scores.shape:
            raise DumpError(
                f"{subject.variant}: {classes} scores for each image, but the fp32 reference has {baseline.shape[1]}"
            )
    return Accuracy(
        subject=subject,
        n=len(labels),
        classes=classes,
        exactness=exactness,
        deviation=deviation,
        output=figures(scores, labels, baseline),
        logits=None if logits is None else figures(as_scores(logits, len(labels)), labels, baseline),
    )


def figures(scores: NDArray[Any], labels: NDArray[Any], reference: NDArray[Any] | None = None) -> Figures:
    """Return the figures of `scores` ``[N, C]`` for `labels` ``[N]``, against `reference` ``[N, C]`` if given.

    A reference that means nothing itself (see `diagnose`) is as none: its own row says what is wrong.
    """
    n, classes = scores.shape
    if error := diagnose(scores):
        return Figures(None, None, None, None, None, None, None, distinct_outputs(scores), error)
    hits = top_k(scores, labels, 1)
    same = delta = p_value = None
    if reference is not None and diagnose(reference) is None:
        reference_hits = top_k(reference, labels, 1)
        same = float(agreement(scores, reference).mean())
        delta = paired_difference(hits, reference_hits)
        p_value = mcnemar(hits, reference_hits)
    return Figures(
        top1=wilson(float(hits.mean()), n),
        top5=wilson(float(top_k(scores, labels, 5).mean()), n) if classes >= 5 else None,
        ties=float(boundary_ties(scores, 1).mean()),
        ties5=float(boundary_ties(scores, 5).mean()) if classes >= 5 else None,
        agreement=same,
        delta=delta,
        mcnemar_p=p_value,
        distinct_outputs=distinct_outputs(scores),
        error=None,
    )


def as_scores(values: NDArray[Any], n: int) -> NDArray[Any]:
    """Return `values` as ``[N, C]``.

    Raises
    ------
    DumpError
        Not `n` vectors of scores.
    """
    if values.ndim == 4 and values.shape[2:] == (1, 1):
        values = values[:, :, 0, 0]
    if values.ndim != 2 or values.shape[0] != n or values.shape[1] == 0:
        raise DumpError(f"scores of shape {values.shape}, expected ({n}, classes) or ({n}, classes, 1, 1)")
    return values


def _check_labels(labels: NDArray[Any], classes: int) -> None:
    """Refuse labels that are no classes."""
    if len(labels) == 0:
        raise DatasetError("no test images: accuracy needs at least one")
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= classes:
        raise DatasetError(
            f"labels go from {lowest} to {highest}, but the network's output has {classes} classes, "
            f"0 to {classes - 1}; do data set and model belong together?"
        )


def top_k(scores: NDArray[Any], labels: NDArray[Any], k: int) -> NDArray[np.float64]:
    """Return for each image the expected hit of its label among the `k` highest scores.

    With ``g`` scores above the label's and ``t`` equal to it (its own included), ``k - g`` of the ``t`` tied places lie
    within `k`, so random tie breaking hits with probability ``clip((k - g) / t, 0, 1)``. Without a tie that is 0 or 1.

    Parameters
    ----------
    scores : ndarray
        ``[N, C]`` without NaN.
    labels : ndarray
        ``[N]``.
    k : int
        1 or more.
    """
    own = scores[np.arange(len(labels)), labels][:, None]
    above = (scores > own).sum(axis=1)
    tied = (scores == own).sum(axis=1)
    hits: NDArray[np.float64] = np.clip((k - above) / tied, 0.0, 1.0)
    return hits


def boundary_ties(scores: NDArray[Any], k: int) -> NDArray[np.bool_]:
    """Return for each image whether its `k` highest classes are undetermined.

    That is so where the k-th and the (k+1)-th highest scores are equal, whatever the label. Ties elsewhere do not
    matter; with at most `k` classes there is no boundary.
    """
    classes = scores.shape[1]
    if classes <= k:
        return np.zeros(len(scores), np.bool_)
    order = np.partition(scores, (classes - k - 1, classes - k), axis=1)
    tied: NDArray[np.bool_] = order[:, classes - k] == order[:, classes - k - 1]
    return tied


def agreement(scores: NDArray[Any], reference: NDArray[Any]) -> NDArray[np.float64]:
    """Return for each image the probability that both give the same top-1, ties broken at random and independently.

    With the sets A and B of classes that share the highest score, ``|A & B| / (|A| |B|)``; without ties 0 or 1.
    """
    best = scores == scores.max(axis=1, keepdims=True)
    expected = reference == reference.max(axis=1, keepdims=True)
    common: NDArray[np.float64] = (best & expected).sum(axis=1) / (best.sum(axis=1) * expected.sum(axis=1))
    return common


def wilson(share: float, n: int) -> Interval:
    """Return the Wilson score interval (95 %) of a `share` of `n` trials.

    E. B. Wilson, J. Am. Stat. Assoc. 22 (1927). `share` may come from expected hits of ties: those vary less than hits,
    so that the interval is then wider than needed, never narrower.
    """
    spread = Z95**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = Z95 / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    # Exact at both ends, where rounding would leave 1e-17; never excludes the estimate.
    low = 0.0 if share == 0 else max(0.0, centre - half)
    high = 1.0 if share == 1 else min(1.0, centre + half)
    return Interval(share, min(low, share), max(high, share))


def paired_difference(hits: NDArray[np.float64], reference: NDArray[np.float64]) -> Interval:
    """Return the mean of ``hits - reference`` with a 95 % interval for paired proportions.

    The same images are classified twice, so the difference is far better known than either share. Agresti and Min
    (Statist. Med. 24, 2005): a Wald interval after adding 1/2 to each cell of the 2 x 2 table, which does not collapse
    where no image changed. The sum of squared differences stands for the number of discordant images, so expected hits
    of ties enter with what they contribute.
    """
    difference = hits - reference
    n = len(difference) + 2
    # The two discordant cells gain 1/2 each: their difference stays, their sum grows by 1.
    total, squares = float(difference.sum()), float((difference**2).sum()) + 1
    centre = total / n
    half = Z95 * math.sqrt(squares - total**2 / n) / n
    value = float(difference.mean())
    return Interval(value, max(-1.0, min(centre - half, value)), min(1.0, max(centre + half, value)))


def mcnemar(hits: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Return the exact two-sided p-value of McNemar's test that images are lost as likely as won.

    Binomial with probability 1/2 over the images whose hit changed. An image with a tie counts by the sign of its
    change (a sign test; without ties that is McNemar's).
    """
    from scipy.special import bdtr  # Here: it takes longer to import than a job of few images takes to score.

    won, lost = int((hits > reference).sum()), int((hits < reference).sum())
    return min(1.0, 2 * float(bdtr(min(won, lost), won + lost, 0.5)))


def distinct_outputs(scores: NDArray[Any]) -> int:
    """Return the number of different rows of `scores` (0.0 and -0.0 are the same)."""
    rows = np.ascontiguousarray(scores + np.zeros((), scores.dtype))
    return len({hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows})


def diagnose(scores: NDArray[Any]) -> str | None:
    """Return why `scores` ``[N, C]`` mean nothing, or None.

    A device or compiler that fails quietly writes zeros, or the same vector for each image, and exits with status 0.
    Such an accuracy is the share of some class in the data set, so it must not be reported as one.
    """
    n = len(scores)
    images = "the only image" if n == 1 else f"all {n} images"
    if nan := int(np.isnan(scores).any(axis=1).sum()):
        return f"NaN: {nan} of {n} images have scores that are not numbers"
    if not scores.any():
        return f"all zero: every score of {images} is 0"
    if scores.shape[1] > 1 and (scores == scores[:, :1]).all():
        return f"flat: in {images}, the scores of all classes are equal"
    if n > 1 and (scores == scores[:1]).all():
        return f"constant: {images} have the same scores"
    return None


def write_accuracy(path: Path | str, accuracy: Accuracy) -> None:
    """Write ``accuracy.json``."""
    write_json(path, asdict(accuracy))


def read_accuracy(path: Path | str) -> Accuracy:
    """Read what `write_accuracy` wrote.

    Raises
    ------
    ReportError
        The file is missing, not JSON, or has other keys; the message names the first.
    """
    content = read_record(path, Accuracy, "accuracy")
    return Accuracy(
        subject=Subject(**content["subject"]),
        n=content["n"],
        classes=content["classes"],
        exactness=content["exactness"],
        deviation=read_deviation(path, content["deviation"]),
        output=_read_figures(path, "output", content["output"]),
        logits=None if content["logits"] is None else _read_figures(path, "logits", content["logits"]),
    )


def read_record(path: Path | str, record: type, what: str) -> Any:
    """Return what a file says of a run: an object with the fields of `record`, one of which is its subject.

    Raises
    ------
    ReportError
        The file is missing, not JSON, or has other keys; the message names the first.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: cannot read the {what} record: {error}") from error
    check_keys(path, "", content, record)
    check_keys(path, "subject", content["subject"], Subject)
    return content


def read_deviation(path: Path | str, content: Any) -> Deviation | None:
    """Read one `Deviation`; None where there is none."""
    if content is None:
        return None
    check_keys(path, "deviation", content, Deviation)
    return Deviation(**{**content, "images": tuple(content["images"])})


def _read_figures(path: Path | str, where: str, content: Any) -> Figures:
    """Read one `Figures`."""
    check_keys(path, where, content, Figures)
    intervals = {}
    for name in ("top1", "top5", "delta"):
        if content[name] is not None:
            check_keys(path, f"{where}.{name}", content[name], Interval)
            intervals[name] = Interval(**content[name])
    return Figures(**{**content, **intervals})


def check_keys(path: Path | str, where: str, content: Any, record: type) -> None:
    """Refuse an object, read from `path`, that has other keys than the fields of `record`."""
    expected = {field.name for field in fields(record)}
    place = f" in {where!r}" if where else ""
    if not isinstance(content, Mapping):
        raise ReportError(f"{path}: record: expected an object{place}, got {type(content).__name__}")
    if wrong := sorted(expected ^ content.keys()):
        state = "is missing" if wrong[0] in expected else "is unknown"
        raise ReportError(f"{path}: record: key {wrong[0]!r}{place} {state}; was it written by another version?")
