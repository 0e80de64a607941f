"""Fidelity of a run over a data set: what its outputs are worth beside fp32's, with intervals over images."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import DatasetError
from nvdla_quant.evaluation.accuracy import (
    Deviation,
    Interval,
    Subject,
    check_keys,
    mcnemar,
    read_deviation,
    read_record,
)
from nvdla_quant.evaluation.fidelity.bootstrap import Numbers, decibels, difference, interval, mean, sqnr
from nvdla_quant.evaluation.fidelity.images import ImageErrors
from nvdla_quant.jobs.files import write_json, write_npz


@dataclass(frozen=True)
class Task:
    """What a case measures, as the configuration declares it.

    Attributes
    ----------
    argmax : bool
        Whether the highest channel of each pixel counts, as a segmentation network's does.
    peak : float or None
        Largest value that an output means, in real units: what a PSNR is of.
    lower_is_better : bool
        Of the numbers of a command.
    """

    argmax: bool = False
    peak: float | None = None
    lower_is_better: bool = False


@dataclass(frozen=True)
class OutputFigures:
    """What one output is worth.

    Attributes
    ----------
    name : str
        The output, as the network's file calls it.
    shape : tuple[int, ...]
        Of one image.
    step : float or None
        Real value of one step; None in fp16.
    sqnr : Interval or None
        Signal over noise, over all images, in dB; 300 where nothing differs.
    psnr : Interval or None
        Peak over noise in dB, where the case has a peak.
    cosine : Interval or None
        Mean over images of the cosine of the angle to fp32's.
    mean_error : Interval or None
        Mean absolute difference, in real units.
    max_error : float or None
        Largest absolute difference.
    saturated : float or None
        Share of the values at an end of the range.
    agreement : Interval or None
        Share of the pixels with the same highest channel, where the case asks for it.
    distinct_outputs : int
        Number of different outputs.
    error : str or None
        Why the output means nothing; then all figures are None.
    """

    name: str
    shape: tuple[int, ...]
    step: float | None
    sqnr: Interval | None
    psnr: Interval | None
    cosine: Interval | None
    mean_error: Interval | None
    max_error: float | None
    saturated: float | None
    agreement: Interval | None
    distinct_outputs: int
    error: str | None


@dataclass(frozen=True)
class Numbered:
    """What a user's command says of a run, a number an image.

    Attributes
    ----------
    value, reference : Interval
        Mean over images: of the run, and of fp32.
    delta : Interval
        The run's minus fp32's, on the same images.
    won, lost : int
        Images whose number is better (worse) than fp32's.
    p : float
        Exact two-sided sign test of `won` against `lost`.
    lower_is_better : bool
        Which of two numbers is better.
    """

    value: Interval
    reference: Interval
    delta: Interval
    won: int
    lost: int
    p: float
    lower_is_better: bool


@dataclass(frozen=True)
class Fidelity:
    """One row of the comparison.

    Attributes
    ----------
    subject : Subject
        What was measured.
    n : int
        Number of images.
    exactness : str
        What the run backend promises, in words.
    deviation : Deviation or None
        How far it is off where it does not promise bits and some images were checked.
    sqnr : Interval or None
        Of all outputs together in dB: of the mean of their noise, each over its own signal. Of one output its own. None
        where one means nothing.
    outputs : tuple[OutputFigures, ...]
        In the order of the network.
    numbers : Numbered or None
        What the case's command says, where it has one.
    """

    subject: Subject
    n: int
    exactness: str
    deviation: Deviation | None
    sqnr: Interval | None
    outputs: tuple[OutputFigures, ...]
    numbers: Numbered | None


@dataclass(frozen=True, eq=False)
class Output:
    """One output with its errors on the images that gave one.

    Attributes
    ----------
    name : str
        As the network's file calls it.
    shape : tuple[int, ...]
        Of one image.
    step : float or None
        Real value of one step; None in fp16.
    errors : ImageErrors
        Image by image.
    """

    name: str
    shape: tuple[int, ...]
    step: float | None
    errors: ImageErrors


def measure(
    subject: Subject,
    outputs: Sequence[Output],
    task: Task,
    *,
    exactness: str,
    deviation: Deviation | None = None,
    numbers: tuple[Numbers, Numbers] | None = None,
) -> Fidelity:
    """Return the record of one run.

    Parameters
    ----------
    subject : Subject
        What was measured.
    outputs : Sequence[Output]
        All of them, on the same images.
    task : Task
        What counts.
    exactness : str
        What the run backend promises, in words.
    deviation : Deviation, optional
        How far it is off.
    numbers : tuple of NDArray[float64], optional
        What a command says of each image: of the run, and of fp32, ``(n,)`` each; NaN where an image has no number.

    Raises
    ------
    DatasetError
        Fewer than two images, or no image with a number.
    """
    found = tuple(figures(output, task) for output in outputs)
    sound = not any(one.error for one in found)
    return Fidelity(
        subject=subject,
        n=len(outputs[0].errors),
        exactness=exactness,
        deviation=deviation,
        sqnr=interval(lambda noise: decibels(mean(noise)), relative_noise(outputs)) if sound else None,
        outputs=found,
        numbers=None if numbers is None or not sound else compare_numbers(*numbers, task.lower_is_better),
    )


def figures(output: Output, task: Task) -> OutputFigures:
    """Return the figures of one output."""
    errors = output.errors
    named = {"name": output.name, "shape": output.shape, "step": output.step}
    distinct = len(np.unique(errors.digest))
    if error := diagnose(errors):
        empty = dict.fromkeys(("sqnr", "psnr", "cosine", "mean_error", "max_error", "saturated", "agreement"))
        return OutputFigures(**named, **empty, distinct_outputs=distinct, error=error)  # type: ignore[arg-type]
    return OutputFigures(
        **named,  # type: ignore[arg-type]
        sqnr=interval(sqnr, errors.signal, errors.noise),
        psnr=None if task.peak is None else _psnr(errors.noise / np.prod(output.shape), task.peak),
        cosine=interval(mean, errors.cosine),
        mean_error=interval(mean, errors.mean_error),
        max_error=float(errors.max_error.max()),
        saturated=float(errors.saturated.mean()),
        agreement=interval(mean, errors.agreement) if task.argmax else None,
        distinct_outputs=distinct,
        error=None,
    )


def _psnr(mean_squares: Numbers, peak: float) -> Interval:
    """Return ``10 log10(peak**2 / mean squared error)`` in dB, at most 300 (ITU-T J.247, annex on PSNR)."""
    return interval(lambda squares: decibels(mean(squares)), mean_squares / peak**2)


def diagnose(errors: ImageErrors) -> str | None:
    """Return why an output means nothing, or None.

    A device or compiler that fails quietly writes zeros, or the same for each image, and exits with status 0. What
    fp32's output is as well is not held against it, but where that is zero there is no signal to compare with.
    """
    n = len(errors)
    if lost := int((~errors.sound).sum()):
        return f"NaN: {lost} of {n} images have values that are not finite"
    if errors.exact_zero.all():
        return f"fp32: its output is 0 in all {n} images, so that nothing can be compared with it"
    if errors.zero.all():
        return f"all zero: every value of all {n} images is 0"
    if errors.flat.all() and not errors.exact_flat.all():
        return f"flat: in all {n} images, all values are equal"
    if n > 1 and len(np.unique(errors.digest)) == 1 and len(np.unique(errors.exact_digest)) > 1:
        return f"constant: all {n} images have the same values"
    return None


def relative_noise(outputs: Sequence[Output]) -> Numbers:
    """Return the noise of each image, ``(n,)``: the mean over outputs, each over the mean signal of its images.

    The mean of it over images is the noise over signal of the run, so that runs are compared image by image.
    """
    shares = [
        output.errors.noise / max(float(output.errors.signal.mean()), np.finfo(np.float64).tiny) for output in outputs
    ]
    noise: Numbers = np.mean(shares, axis=0)
    return noise


def compare_numbers(numbers: Numbers, reference: Numbers, lower_is_better: bool) -> Numbered:
    """Return what a command's numbers ``(n,)`` say beside fp32's, on the images that have both."""
    both = np.isfinite(numbers) & np.isfinite(reference)
    if not both.any():
        raise DatasetError("the command gave no image a number for both fp32 and the variant; see its log")
    ours, theirs = numbers[both], reference[both]
    won, lost, p = flips(ours, theirs, lower_is_better)
    return Numbered(
        interval(mean, ours), interval(mean, theirs), interval(difference, ours, theirs), won, lost, p, lower_is_better
    )


def flips(ours: Numbers, theirs: Numbers, lower_is_better: bool) -> tuple[int, int, float]:
    """Return how many images are better, how many are worse, and the p-value of an exact sign test of that."""
    better, worse = (theirs, ours) if lower_is_better else (ours, theirs)
    return int((better > worse).sum()), int((better < worse).sum()), mcnemar(better, worse)


# ---- files


def write_fidelity(path: Path | str, fidelity: Fidelity) -> None:
    """Write ``fidelity.json``."""
    write_json(path, asdict(fidelity))


def read_fidelity(path: Path | str) -> Fidelity:
    """Read what `write_fidelity` wrote.

    Raises
    ------
    ReportError
        The file is missing, not JSON, or has other keys; the message names the first.
    """
    content = read_record(path, Fidelity, "fidelity")
    return Fidelity(
        subject=Subject(**content["subject"]),
        n=content["n"],
        exactness=content["exactness"],
        deviation=read_deviation(path, content["deviation"]),
        sqnr=_interval(path, content["sqnr"]),
        outputs=tuple(_output(path, one) for one in content["outputs"]),
        numbers=_numbered(path, content["numbers"]),
    )


def _output(path: Path | str, content: Any) -> OutputFigures:
    check_keys(path, "outputs", content, OutputFigures)
    names = ("sqnr", "psnr", "cosine", "mean_error", "agreement")
    intervals = {name: _interval(path, content[name]) for name in names}
    return OutputFigures(**{**content, **intervals, "shape": tuple(content["shape"])})


def _numbered(path: Path | str, content: Any) -> Numbered | None:
    if content is None:
        return None
    check_keys(path, "numbers", content, Numbered)
    return Numbered(**{**content, **{name: _interval(path, content[name]) for name in ("value", "reference", "delta")}})


def _interval(path: Path | str, content: Mapping[str, float] | None) -> Interval | None:
    if content is None:
        return None
    check_keys(path, "interval", content, Interval)
    return Interval(**content)


_ARRAYS = ("noise", "cosine", "mean_error", "max_error", "saturated", "agreement")
"""What is kept of each image and output."""


def write_image_errors(
    path: Path | str, outputs: Sequence[Output], ran: NDArray[np.bool_], numbers: Numbers | None
) -> None:
    """Write ``fidelity.npz``, a number for each test image, NaN where it gave no output.

    ``noise`` (see `relative_noise`), ``numbers`` of a command where there is one, and ``NAME/noise`` and so on of each
    output: the fields of `ImageErrors`, ``noise`` over ``signal``.
    """
    arrays = {"noise": _spread(relative_noise(outputs), ran)}
    if numbers is not None:
        arrays["numbers"] = numbers
    for output in outputs:
        for name in _ARRAYS:
            values = getattr(output.errors, name)
            if not np.isnan(values).all():
                arrays[f"{output.name}/{name}"] = _spread(values, ran)
    write_npz(path, arrays)


def _spread(values: Numbers, ran: NDArray[np.bool_]) -> Numbers:
    """Return values of the images that ran in the places of all images."""
    found = np.full(len(ran), np.nan)
    found[ran] = values
    return found
