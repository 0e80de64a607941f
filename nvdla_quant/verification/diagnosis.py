"""The verdict on a loadable: right, or what is wrong, where it begins, and the likely cause.

Letters A to E are the miscompiles of nvdla/sw's compiler as docs/verify.md lists them. Every cause is read from the
loadable's own bytes and results, never from names.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.operations import ConvOperation, CpuOperation, Operation, SdpOperation, SdpUnit
from nvdla_quant.emulator.program import Program
from nvdla_quant.hardware import Precision
from nvdla_quant.network.graph import Convolution, Eltwise
from nvdla_quant.simulation import INT8_MAX, INT8_MIN
from nvdla_quant.verification.examination import Examination, Examined, Held
from nvdla_quant.verification.local import Detail, Local, local_of
from nvdla_quant.verification.mapping import base_name
from nvdla_quant.verification.measures import Comparison
from nvdla_quant.verification.weights import WeightCheck

NEAR_COSINE = 0.995
"""Least cosine of the scores with a reference that they are near to: the agreement that this project promises for
its own loadables. Right golden loadables reach 0.999, those whose table clips 0.995 at most (docs/verify.md). The limit
lies before accuracy suffers: tables of few images at 0.985 to 0.995 keep the top class of 99 % of LeNet's images."""
NEAR_CORRELATION = 0.9
"""The same with each channel's mean subtracted, which is what tells images apart."""
ROUNDED_COSINE = 0.95
"""Least cosine of the scores with fp32 at which roundings of the hardware, which no table changes, are no verdict."""
CENTRED_IMAGES = 16
"""Fewest images whose means are known well enough for that to count."""
CLIPPED = 0.01
"""Share of clipped inputs or saturated values from which on it is worth saying."""
SAME_ROW = 0.99
"""Correlation of a kernel row with a row of the network from which on it is that row."""
PRODUCT_ROUNDING = 128.0
"""Steps that a product may be off that was rescaled wrongly: one factor is rounded, the other up to 128."""
SHOWN = 4
"""Channels that a message names."""


class Judgement(StrEnum):
    """What a loadable is.

    ``miscompiled``: it computes something else than its network and table say. ``table``: it does what they say, and
    that is far from the float network. ``precision``: the same in fp16, which has no table. ``unknown``: nobody could
    say what some of its operations are for, which does not make it wrong.
    """

    OK = "ok"
    TABLE = "table"
    MISCOMPILED = "miscompiled"
    PRECISION = "precision"
    UNKNOWN = "unknown"


class Cause(StrEnum):
    """What can be wrong."""

    IMAGE_ROWS = "A first-convolution-rows"
    CONSTANT_CONVOLUTION = "B constant-first-convolution"
    HALF_WEIGHTS = "C first-convolution-fp16-weights"
    GROUP_WEIGHTS = "D group-convolution-weights"
    POOLING_SCALE = "E inconsistent-pooling-scale"
    CONCAT_SCALE = "E inconsistent-concat-scale"
    ELTWISE_SCALE = "eltwise-scale-overwritten"
    PRODUCT = "product-rescale"
    NO_LOOKUP = "missing-lookup-table"
    EMPTY_LOOKUP = "empty-lookup-table"
    RACE = "race"
    INPUT_SCALE = "wrong-input-scale"
    CONSTANT = "constant-output"
    SATURATED_SOFTMAX = "saturated-softmax"
    CLIPPING = "clipping"
    WEIGHTS = "wrong-weights"
    FACTOR = "wrong-factor"
    CHANNELS = "wrong-channels"
    SCALE = "wrong-scale-of-an-input"
    UNWRITTEN = "reads-unwritten-memory"
    RESULT = "wrong-result"
    ROUNDING = "roundings-of-the-hardware"
    CLAIM = "wrong-claim"
    UNPLACED = "not-understood"
    FAILED = "verification-failed"


class Weight(StrEnum):
    """What a finding means for the verdict.

    ``wrong``: the loadable is miscompiled. ``scale``: it is, unless the scores are near all the same. ``doubt``: it may
    be. ``table``: the table asks for it. ``remark``: it changes nothing.
    """

    WRONG = "wrong"
    SCALE = "scale"
    DOUBT = "doubt"
    TABLE = "table"
    REMARK = "remark"


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes
    ----------
    cause : Cause
        The likely cause.
    weight : Weight
        What it means for the verdict.
    layer : str
        Layer whose tensor shows it.
    operation : int or None
        Number of the operation in the loadable.
    evidence : str
        What was found.
    """

    cause: Cause
    weight: Weight
    layer: str
    operation: int | None
    evidence: str


@dataclass(frozen=True)
class Verdict:
    """What a loadable is, and why.

    Attributes
    ----------
    verdict : Judgement
        The judgement.
    first_bad_layer : str or None
        Where the first finding shows that the verdict rests on.
    cause : Cause or None
        Its cause.
    findings : tuple[Finding, ...]
        In the order of execution, those that the verdict rests on first.
    scores_layer : str or None
        Tensor that the references were compared on: the one before a final softmax; None where it was not found.
    fp32, simulated : Comparison or None
        That tensor beside the float network, and beside the simulated int8 network (None in fp16).
    target, precision : str
        What it was run as.
    mode : str or None
        How its weights share scales, as they tell.
    margin : float or None
        How far the scores are inside of the limits of near to the float network; negative where they are beyond.
    claimed : bool
        Whether the compiler said what the operations stand for; else it was searched for.
    images : int
        Images that were run.
    warnings : tuple[str, ...]
        What the hardware ignores.
    """

    verdict: Judgement
    first_bad_layer: str | None
    cause: Cause | None
    findings: tuple[Finding, ...]
    scores_layer: str | None
    fp32: Comparison | None
    simulated: Comparison | None
    target: str
    precision: str
    mode: str | None
    margin: float | None
    claimed: bool
    images: int
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return what ``verdict.json`` holds; numbers that are not finite as text."""
        result: dict[str, Any] = _plain(asdict(self))
        return result


def diagnose(examination: Examination) -> Verdict:
    """Judge a loadable by what `layers.examine` measured."""
    found = [*_of_claim(examination), *_doubts(examination), *_races(examination)]
    found += chain.from_iterable(_of_step(examination, step) for step in examination.steps)
    found += [*_of_table(examination), *_roundings(examination)]
    judgement, grave = _judged(examination, found)
    first = min(grave, key=lambda finding: -1 if finding.operation is None else finding.operation, default=None)
    rest = [finding for finding in found if finding is not first]
    scores = examination.scores
    images = len(examination.images)
    return Verdict(
        verdict=judgement,
        first_bad_layer=None if first is None else first.layer,
        cause=None if first is None else first.cause,
        findings=tuple(rest) if first is None else (first, *rest),
        scores_layer=None if scores is None else scores.layer,
        fp32=None if scores is None else scores.beside.fp32,
        simulated=None if scores is None else scores.beside.simulated,
        target=examination.program.target.name,
        precision=examination.program.precision.value,
        mode=None if examination.mode is None else examination.mode.value,
        margin=None if scores is None else margin_of(scores.beside.fp32, images),
        claimed=examination.claimed,
        images=images,
        warnings=examination.program.warnings,
    )


def _judged(examination: Examination, found: Sequence[Finding]) -> tuple[Judgement, list[Finding]]:
    """Return the judgement and the findings that it rests on."""
    by_weight = {weight: [finding for finding in found if finding.weight is weight] for weight in Weight}
    wrong, doubts = by_weight[Weight.WRONG], by_weight[Weight.DOUBT]
    scores = examination.scores
    if scores is None:
        return (Judgement.MISCOMPILED, wrong) if wrong else (Judgement.UNKNOWN, doubts)
    images, beside = len(examination.images), scores.beside
    near_simulated = beside.simulated is None or margin_of(beside.simulated, images) >= 0
    if not wrong and not near_simulated:
        wrong = by_weight[Weight.SCALE]
    if wrong:
        return Judgement.MISCOMPILED, wrong
    if doubts:
        return Judgement.UNKNOWN, doubts
    if margin_of(beside.fp32, images) >= 0 or _is_rounding(examination):
        return Judgement.OK, []
    if examination.program.precision is Precision.FP16:
        return Judgement.PRECISION, []
    return Judgement.TABLE, by_weight[Weight.TABLE]


def _is_rounding(examination: Examination) -> bool:
    """Return whether the hardware's own roundings alone take the scores beyond the limit: the table is no reason."""
    scores = examination.scores
    if scores is None or scores.beside.of_table is None or not examination.claimed:
        return False
    images = len(examination.images)
    near_enough = scores.beside.fp32.cosine >= ROUNDED_COSINE and margin_of(scores.beside.fp32, images) < 0
    return near_enough and margin_of(scores.beside.of_table, images) >= 0


def _roundings(examination: Examination) -> Iterator[Finding]:
    """Say where the hardware's roundings cost more than the table."""
    if _is_rounding(examination) and (scores := examination.scores) and scores.beside.of_table:
        text = f"every operation is right, and the scores' cosine to fp32 is {scores.beside.fp32.cosine:.4f}, beside "
        text += f"{scores.beside.of_table.cosine:.4f} of an int8 network without the hardware's roundings in between"
        operation = scores.steps[-1].operations[-1].index
        yield Finding(Cause.ROUNDING, Weight.REMARK, scores.layer, operation, text)


def _of_claim(examination: Examination) -> Iterator[Finding]:
    """Yield what the compiler claims and is not so."""
    for fault in examination.faults:
        yield Finding(Cause.CLAIM, Weight.WRONG, fault.layer, fault.operation, fault.text)


def _doubts(examination: Examination) -> Iterator[Finding]:
    """Yield what could not be found out."""
    for doubt in examination.doubts:
        yield Finding(Cause.UNPLACED, Weight.DOUBT, "", doubt.operation, doubt.text)


def unknown(program: Program, why: str, images: int) -> Verdict:
    """Return the verdict on a loadable that could not be verified."""
    return Verdict(
        verdict=Judgement.UNKNOWN,
        first_bad_layer=None,
        cause=Cause.FAILED,
        findings=(Finding(Cause.FAILED, Weight.DOUBT, "", None, why),),
        scores_layer=None,
        fp32=None,
        simulated=None,
        target=program.target.name,
        precision=program.precision.value,
        mode=None,
        margin=None,
        claimed=False,
        images=images,
        warnings=program.warnings,
    )


def margin_of(comparison: Comparison, images: int) -> float:
    """Return how far values of some images are inside of the limits of near to a reference; negative beyond them."""
    margins = [comparison.cosine - NEAR_COSINE]
    if images >= CENTRED_IMAGES:
        margins.append(comparison.correlation - NEAR_CORRELATION)
    return min(margins)


def _races(examination: Examination) -> Iterator[Finding]:
    for step in examination.steps:
        for operation in step.operations:
            for warning in examination.program.warnings:
                if warning.startswith(f"race: operation {operation.index} "):
                    text = warning.removeprefix("race: ")
                    yield Finding(Cause.RACE, Weight.WRONG, step.layer, operation.index, text)


def _of_step(examination: Examination, step: Examined) -> Iterator[Finding]:
    """Yield what is wrong at one step; roundings are not."""
    wrong_weights = [check for check in step.weights if not check.is_right]
    for check in wrong_weights:
        yield _wrong_weights(examination, step, check)
    if step.strays and not step.local.is_right:
        text = "it reads bytes that neither an input nor an operation wrote"
        yield _finding(Cause.UNWRITTEN, Weight.WRONG, step, text)
    if "Eltwise" in step.reason:
        text = f"{step.reason}, {step.effective:.6g}, not its own {step.scale:.6g}; what reads it must take it so"
        yield _finding(Cause.ELTWISE_SCALE, Weight.REMARK, step, text)
    if step.misread is not None:
        yield from _misreading(step)
    elif not step.local.is_right and not wrong_weights:
        yield _explained(examination, step, step.local.detail)
    elif step.gains is not None and not wrong_weights:
        yield _wrong_gains(step, step.gains)


def _explained(examination: Examination, step: Examined, detail: Detail | None) -> Finding:
    assert detail is not None
    explanations = (explain(examination, step, detail) for explain in _EXPLANATIONS)
    finding = next(finding for finding in explanations if finding is not None)
    if step.merged and finding.cause in _GENERAL:
        # The roundings between its operations are not known, so they may explain it.
        return replace(finding, cause=Cause.UNPLACED, weight=Weight.DOUBT)
    return finding


def _wrong_gains(step: Examined, gains: NDArray[np.float64]) -> Finding:
    """Say how far multipliers are off, where roundings hide what they make of these images."""
    off = np.flatnonzero(gains != 1)
    shown = [f"{channel} ({gains[channel]:.5g} times)" for channel in off[:SHOWN]]
    more = f" and {len(off) - SHOWN} more" if len(off) > SHOWN else ""
    text = f"the multipliers of channels {', '.join(shown)}{more} of {len(gains)} do not fit weights and scales"
    return _finding(Cause.FACTOR if len(off) == len(gains) else Cause.CHANNELS, Weight.WRONG, step, text)


def _finding(cause: Cause, weight: Weight, step: Examined, evidence: str) -> Finding:
    return Finding(cause, weight, step.layer, step.suspect, evidence)


def _wrong_weights(examination: Examination, step: Examined, check: WeightCheck) -> Finding:
    found = examination.original.by_name.get(base_name(check.layer))
    layer = None if found is None else found.operation
    convolution = next(op.source for op in step.operations if _is_convolution(op))
    assert isinstance(convolution, ConvOperation)
    count = f"{np.count_nonzero(check.wrong)} of {check.wrong.size} weights of {check.layer}"
    if isinstance(layer, Convolution) and layer.group > 1:
        text = f"{count} are not the network's: of {layer.group} groups written out only a part was quantized"
        return _finding(Cause.GROUP_WEIGHTS, Weight.WRONG, step, text)
    rows, of_image = _rows(check), convolution.pixels is not None
    if of_image and rows is not None and rows != list(range(len(rows))):
        missing = sorted(set(range(len(rows))) - set(rows))
        text = f"rows {', '.join(map(str, rows))} of the network's kernels stand where rows 0 to {len(rows) - 1} should"
        text += f" (missing: {', '.join(map(str, missing))})" if missing else ""
        return _finding(Cause.IMAGE_ROWS, Weight.WRONG, step, f"{text}; {count} are wrong")
    finite = np.isfinite(check.weights)
    if convolution.precision is Precision.FP16 and convolution.pixels is not None and step.kinds & _AFFINE:
        size = np.abs(check.weights[finite]).max(initial=0) / max(float(np.abs(check.float_weights).max()), 1e-30)
        text = f"{count} are not the network's times one factor a kernel, {np.count_nonzero(~finite)} are not finite, "
        text += f"the largest is {size:.3g} times the network's largest: the folded BatchNorm reached only a part"
        return _finding(Cause.HALF_WEIGHTS, Weight.WRONG, step, text)
    kernel, row, column, channel = (int(index[0]) for index in np.nonzero(check.wrong))
    expected = check.float_weights[kernel, row, column, channel] / check.factors[kernel]
    text = f"{count} are not the network's: the first, of kernel {kernel} at row {row}, column {column}, channel "
    text += f"{channel}, is {check.weights[kernel, row, column, channel]:.6g}, expected {expected:.6g}"
    return _finding(Cause.WEIGHTS, Weight.WRONG, step, text)


_AFFINE = frozenset({"BatchNorm", "Scale", "Power"})


def _is_convolution(operation: Operation) -> bool:
    return isinstance(operation, SdpOperation) and isinstance(operation.source, ConvOperation)


def _rows(check: WeightCheck) -> list[int] | None:
    """Return which row of the network's kernels each row of the loadable's is; None where one is like none."""
    rows = check.weights.shape[1]
    if not np.isfinite(check.weights).all():
        return None
    # Each kernel in its own unit, since each has its own factor.
    found = [_scaled(check.weights)[:, row].ravel() for row in range(rows)]
    expected = [_scaled(check.float_weights)[:, row].ravel() for row in range(rows)]
    result = []
    for values in found:
        alike = [_cosine(values, other) for other in expected]
        if max(alike) < SAME_ROW:
            return None
        result.append(int(np.argmax(alike)))
    return result


def _scaled(kernels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return kernels with the largest magnitude of each at 1."""
    size = np.abs(kernels).max(axis=(1, 2, 3), keepdims=True)
    scaled: NDArray[np.float64] = kernels / np.where(size > 0, size, 1)
    return scaled


def _cosine(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    norm = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(np.sum(first * second)) / norm if norm > 0 else 0.0


def _misreading(step: Examined) -> Iterator[Finding]:
    misread = step.misread
    assert misread is not None
    if not misread.explained:
        return  # It follows from what is wrong there.
    source, taken, held = misread.scales[0]
    causes = {"pooling": Cause.POOLING_SCALE, "concat": Cause.CONCAT_SCALE, "eltwise": Cause.ELTWISE_SCALE}
    why = {
        "pooling": "pooling keeps its input's scale, the table says otherwise",
        "concat": f"{misread.layer} cannot rescale its inputs",
        "eltwise": f"the compiler gave both inputs of {misread.layer} one scale after this one was computed",
    }
    text = f"it takes {source} for steps of {taken:.6g}, but those are {held:.6g} ({held / taken:.4g} times): "
    text += why.get(misread.kind, "the table's entry is not what it holds")
    cause = causes.get(misread.kind, Cause.SCALE)
    yield _finding(cause, Weight.SCALE if cause is not Cause.SCALE else Weight.WRONG, step, text)


def _no_lookup(examination: Examination, step: Examined, detail: Detail) -> Finding | None:
    del detail
    if not step.kinds & {"Sigmoid", "TanH"}:
        return None
    units = _units(step)
    luts = [op.lut for op in step.operations if isinstance(op, SdpOperation) and op.lut is not None]
    if not any(unit.lookup for unit in units):
        without = f"; {examination.program.target.name} has no unit for one" * (not examination.program.target.has_y)
        text = f"the operation applies no look-up table, so the activation is missing{without}"
        return _finding(Cause.NO_LOOKUP, Weight.WRONG, step, text)
    for lut in luts:
        halves = (lut.linear_exp.entries, lut.linear_only.entries)
        if all(np.all(entries == entries[0]) for entries in halves):
            text = f"all {sum(map(len, halves))} entries of its look-up table are {int(halves[0][0])}"
            return _finding(Cause.EMPTY_LOOKUP, Weight.WRONG, step, text)
    return None


def _units(step: Examined) -> list[SdpUnit]:
    return [unit for op in step.operations if isinstance(op, SdpOperation) for unit in op.units]


def _product(examination: Examination, step: Examined, detail: Detail) -> Finding | None:
    table = examination.table
    if table is None:
        return None
    layers = [layer for name in step.layers if (layer := examination.original.by_name.get(base_name(name)))]
    factors = {
        base_name(name): table[base_name(name)]
        for layer in layers
        if isinstance(layer.operation, Eltwise) and layer.operation.operation == "prod"
        for name in layer.inputs
    }
    tried = {name: _beside(step, detail.expected / np.float32(scale)) for name, scale in factors.items()}
    fitting = {name: local.error for name, local in tried.items() if local.is_right}
    if not fitting:
        return None
    name = min(fitting, key=lambda name: fitting[name])
    text = f"the product is {1 / factors[name]:.4g} times what it should be: it was rescaled by the scale of one "
    text += f"input ({factors[name]:.6g}, of {name}), not of both"
    return _finding(Cause.PRODUCT, Weight.WRONG, step, text)


def _beside(step: Examined, expected: NDArray[np.float32]) -> Local:
    return local_of(step.operations, step.values, expected, step.effective, step.leeways, PRODUCT_ROUNDING)


def _shift_of(step: Examined, detail: Detail, channel: int) -> float:
    """Return the median difference of a channel's values that do not saturate; of all where all do."""
    exact = detail.expected[:, channel].astype(np.float64) / step.effective
    found = step.values[:, channel].astype(np.float64)
    if step.values.dtype == np.int8:
        exact = np.clip(exact, INT8_MIN, INT8_MAX)
        inside = (np.abs(exact) < INT8_MAX) & (np.abs(found) < INT8_MAX)
        exact, found = (exact[inside], found[inside]) if inside.any() else (exact, found)
    return float(np.median(found - exact))


def _fits(step: Examined, expected: NDArray[np.float32]) -> bool:
    """Return whether other expected values explain what a step wrote."""
    return local_of(step.operations, step.values, expected, step.effective, step.leeways).is_right


def _constant(examination: Examination, step: Examined, detail: Detail) -> Finding | None:
    del examination
    if step.constant_channels < step.values.shape[1] or step.values[0, 0].size * len(step.values) == 1:
        return None
    lines = np.moveaxis(detail.expected, 1, 0).reshape(step.values.shape[1], -1)
    if (lines == lines[:, :1]).all():
        return None
    convolution = next((op for op in step.operations if _is_convolution(op)), None)
    for unit in convolution.units if isinstance(convolution, SdpOperation) else ():
        register = None if unit.mul_operand is None else unit.mul_operand.register
        if register == 1 and 2.0**unit.truncate > INT8_MAX and step.reads_input:
            text = f"every channel is constant: {unit.name} multiplies the sums of the first convolution by its "
            text += f"register, which is 1, and shifts right by {unit.truncate}; the factor was left in memory"
            return _finding(Cause.CONSTANT_CONVOLUTION, Weight.WRONG, step, text)
    text = f"all {step.values.shape[1]} channels are constant over {len(step.values)} images"
    return _finding(Cause.CONSTANT, Weight.WRONG, step, text)


def _input_scale(examination: Examination, step: Examined, detail: Detail) -> Finding | None:
    """Explain a step by the scale that it takes the network's input for."""
    del detail
    if not step.reads_input or examination.table is None or step.remake is None:
        return None
    outputs = [step.remake(images) for images in (examination.images, np.zeros_like(examination.images))]
    signal, rest = (outputs[0] - outputs[1]).astype(np.float64), outputs[1].astype(np.float64)
    inside = (step.values < INT8_MAX) & (step.values > (0 if step.rectified else INT8_MIN))
    power = float(np.sum(signal[inside] ** 2))
    if power == 0:
        return None
    factor = float(np.sum((step.values[inside] * step.effective - rest[inside]) * signal[inside])) / power
    expected = rest + factor * signal
    if step.rectified:
        expected = np.maximum(expected, 0)
    if not factor > 0 or not _fits(step, expected.astype(np.float32)):
        return None
    scale = examination.input_scale
    text = f"it takes the input for steps of {scale * factor:.6g}, the table says {scale:.6g} ({factor:.4g} times)"
    return _finding(Cause.INPUT_SCALE, Weight.WRONG, step, text)


def _factor(examination: Examination, step: Examined, detail: Detail) -> Finding | None:
    del examination
    if step.values.dtype != np.int8:
        return None
    expected = detail.expected.astype(np.float64)
    inside = (step.values > INT8_MIN) & (step.values < INT8_MAX)
    power = float(np.sum(expected[inside] ** 2))
    factor = float(np.sum(step.values[inside] * step.effective * expected[inside])) / power if power > 0 else 0.0
    if factor == 0 or not _fits(step, (expected * factor).astype(np.float32)):
        return None
    text = f"every value is {factor:.6g} times what the table's scale {step.scale:.6g} makes it: a multiplier or shift"
    return _finding(Cause.FACTOR, Weight.WRONG, step, text)


def _channels(examination: Examination, step: Examined, detail: Detail) -> Finding | None:
    """Explain by some channels alone: a bias, or a multiplier of its own."""
    del examination
    bad = np.flatnonzero(detail.beyond.any(axis=(0, 2, 3)) | (detail.drift != 0))
    if len(bad) == step.values.shape[1] or len(bad) == 0:
        return None
    shown = [f"{channel} (by {_shift_of(step, detail, channel):+.3g})" for channel in bad[:SHOWN]]
    more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    text = f"only channels {', '.join(shown)}{more} of {step.values.shape[1]} are off: their bias or multiplier"
    return _finding(Cause.CHANNELS, Weight.WRONG, step, text)


def _result(examination: Examination, step: Examined, detail: Detail) -> Finding:
    del examination
    unit = "steps" if step.values.dtype == np.int8 else "times the tensor's root mean square"
    bad = detail.beyond
    lines = np.flatnonzero(bad.any(axis=(0, 1, 3)))
    if len(lines) == 0:
        drift = float(detail.drift[np.argmax(np.abs(detail.drift))])
        text = f"every channel is off in the mean, by up to {drift:+.3g} {unit}: biases or multipliers"
        return _finding(Cause.CHANNELS, Weight.WRONG, step, text)
    text = f"{step.local.share:.2%} of the values are up to {step.local.error:.4g} {unit} from what its layers make of "
    text += f"its own inputs; rows {lines[0]} to {lines[-1]} of {bad.shape[2]}"
    return _finding(Cause.RESULT, Weight.WRONG, step, text)


_Explanation = Callable[[Examination, Examined, Detail], Finding | None]
_EXPLANATIONS: Sequence[_Explanation] = (
    _no_lookup, _product, _constant, _factor, _input_scale, _channels, _result,
)  # fmt: skip
"""Tried in this order; the last one explains anything."""
_GENERAL = frozenset({Cause.FACTOR, Cause.CHANNELS, Cause.RESULT})
"""What roundings that nobody counted may look like."""


def _of_table(examination: Examination) -> Iterator[Finding]:
    """Yield what the table, not the compiler, does to the values."""
    if examination.table is None:
        return
    if examination.clipped_inputs > CLIPPED:
        text = f"{examination.clipped_inputs:.1%} of the inputs lie outside {INT8_MAX} steps of "
        text += f"{examination.input_scale:.6g}"
        first = examination.steps[0] if examination.steps else None
        place = (None, "") if first is None else (first.operations[-1].index, first.layer)
        yield Finding(Cause.INPUT_SCALE, Weight.TABLE, place[1], place[0], text)
    for held in examination.held:
        last = held.steps[-1].operations[-1]
        if held.is_softmax and isinstance(last, CpuOperation):
            limit = INT8_MAX * last.output_scale
            reached = max(step.local.reached for step in held.steps)
            if reached > limit * (1 + 0.5 / INT8_MAX):
                text = f"its scale {last.output_scale:.6g} ends at {limit:.4g}, and values reach {reached:.4g}: "
                text += "use 1/127"
                yield Finding(Cause.SATURATED_SOFTMAX, Weight.TABLE, held.layer, last.index, text)
    tensors = [held for held in examination.held if not held.on_cpu]
    if not tensors:
        return
    worst = max(tensors, key=_share_saturated)
    share = _share_saturated(worst)
    if share > CLIPPED:
        text = f"{share:.1%} of its values are at the ends of the range, the most of all layers: steps of "
        text += f"{worst.effective:.6g} are too small"
        yield Finding(Cause.CLIPPING, Weight.TABLE, worst.layer, worst.steps[-1].operations[-1].index, text)


def _share_saturated(held: Held) -> float:
    return held.saturated / held.values.size


def _plain(value: Any) -> Any:
    """Return `value` as JSON can hold it."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value
