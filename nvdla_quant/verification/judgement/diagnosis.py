"""The verdict on a loadable: right, or what is wrong and where it begins."""

from collections.abc import Iterator, Sequence
from itertools import chain

from nvdla_quant.emulator.decode.program import Program
from nvdla_quant.emulator.operations import CpuOperation
from nvdla_quant.execution.simulated import INT8_MAX, INT8_MIN
from nvdla_quant.hardware.targets import Precision
from nvdla_quant.network.graph import Clip, Network
from nvdla_quant.verification.judgement.explanations import findings_of_step
from nvdla_quant.verification.judgement.verdicts import Cause, Finding, Judgement, Near, Verdict, Weight
from nvdla_quant.verification.measures.comparison import Comparison
from nvdla_quant.verification.measures.examination import Beside, Examination, Held

NEAR_COSINE = 0.995
"""Least cosine of the scores with a reference that they are near to: the agreement that this project promises for
its own loadables. Right golden loadables reach 0.999, those whose table clips 0.995 at most (docs/verify.md). The limit
lies before accuracy suffers: tables of few images at 0.985 to 0.995 keep the top class of 99 % of LeNet's images."""

NEAR_CORRELATION = 0.9
"""The same with each channel's mean subtracted, which is what tells images apart."""

ROUNDED_COSINE = 0.9
"""Least cosine of the scores with fp32 at which roundings of the hardware, which no table changes, are no verdict."""

CENTRED_IMAGES = 16
"""Fewest images whose means are known well enough for that to count."""


def diagnose(examination: Examination) -> Verdict:
    """Judge a loadable by what was measured of it."""
    found = [*_of_claim(examination), *_astray(examination), *_doubts(examination), *_races(examination)]
    found += chain.from_iterable(findings_of_step(examination, step) for step in examination.steps)
    found += [*_of_table(examination), *_roundings(examination)]
    judgement, grave = _judged(examination, found)
    first = min(grave, key=lambda finding: -1 if finding.operation is None else finding.operation, default=None)
    rest = [finding for finding in found if finding is not first]
    images = len(examination.images)
    scores = min(examination.scores, key=lambda one: margin_of(one.beside.fp32, images), default=None)
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
        outputs=tuple(_near(one, images) for one in examination.scores) if len(examination.program.outputs) > 1 else (),
    )


def _near(scores: Held, images: int) -> Near:
    beside = scores.beside
    return Near(scores.layer, beside.fp32, beside.simulated, margin_of(beside.fp32, images))


def _judged(examination: Examination, found: Sequence[Finding]) -> tuple[Judgement, list[Finding]]:
    """Return the judgement and the findings that it rests on."""
    by_weight = {weight: [finding for finding in found if finding.weight is weight] for weight in Weight}
    wrong, doubts = by_weight[Weight.WRONG], by_weight[Weight.DOUBT]
    scores = [one.beside for one in examination.scores]
    if not scores:
        return (Judgement.MISCOMPILED, wrong) if wrong else (Judgement.UNKNOWN, doubts)
    images = len(examination.images)
    near_simulated = all(one.simulated is None or margin_of(one.simulated, images) >= 0 for one in scores)
    if not wrong and not near_simulated:
        wrong = by_weight[Weight.SCALE]
    if wrong:
        return Judgement.MISCOMPILED, wrong
    if doubts:
        return Judgement.UNKNOWN, doubts
    if all(margin_of(one.fp32, images) >= 0 or _is_rounding(examination, one) for one in scores):
        return Judgement.OK, []
    if examination.program.precision is Precision.FP16:
        return Judgement.PRECISION, []
    return Judgement.TABLE, by_weight[Weight.TABLE]


def _is_rounding(examination: Examination, scores: Beside) -> bool:
    """Return whether the hardware's own roundings alone take the scores beyond the limit: the table is no reason."""
    if scores.of_table is None or not examination.claimed:
        return False
    images = len(examination.images)
    near_enough = scores.fp32.cosine >= ROUNDED_COSINE and margin_of(scores.fp32, images) < 0
    return near_enough and margin_of(scores.of_table, images) >= 0


def _roundings(examination: Examination) -> Iterator[Finding]:
    """Say where the hardware's roundings cost more than the table."""
    for scores in examination.scores:
        if _is_rounding(examination, scores.beside) and scores.beside.of_table:
            text = f"every operation is right, and the scores' cosine to fp32 is {scores.beside.fp32.cosine:.4f}, "
            text += f"beside {scores.beside.of_table.cosine:.4f} of an int8 network without the hardware's roundings "
            text += "in between"
            operation = scores.steps[-1].operations[-1].index
            yield Finding(Cause.ROUNDING, Weight.REMARK, scores.layer, operation, text)


def _of_claim(examination: Examination) -> Iterator[Finding]:
    """Yield what the compiler claims and is not so."""
    for fault in examination.faults:
        yield Finding(Cause.CLAIM, Weight.WRONG, fault.layer, fault.operation, fault.text)


def _astray(examination: Examination) -> Iterator[Finding]:
    """Yield what outputs hold and should not."""
    for fault in examination.astray:
        yield Finding(Cause.OUTPUT, Weight.WRONG, fault.layer, fault.operation, fault.text)


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
    tensors = [held for held in examination.held if not held.on_cpu and not _ends_at_bounds(held, examination.original)]
    if not tensors:
        return
    worst = max(tensors, key=_share_saturated)
    share = _share_saturated(worst)
    if share > CLIPPED:
        text = f"{share:.1%} of its values are at the ends of the range, the most of all layers: steps of "
        text += f"{worst.effective:.6g} are too small"
        yield Finding(Cause.CLIPPING, Weight.TABLE, worst.layer, worst.steps[-1].operations[-1].index, text)


def _ends_at_bounds(held: Held, network: Network) -> bool:
    """Whether the layer's own bounds lie within the range, so that values at its ends lose nothing: ReLU6 at 6/127."""
    layer = network.by_name.get(held.layer)
    if layer is None or not isinstance(layer.operation, Clip):
        return False
    low, high = layer.operation.low, layer.operation.high
    if low is None or high is None:
        return False
    return low >= (INT8_MIN - 0.5) * held.scale and high <= (INT8_MAX + 0.5) * held.scale


def _share_saturated(held: Held) -> float:
    return held.saturated / held.values.size


CLIPPED = 0.01
"""Share of clipped inputs or saturated values from which on it is worth saying."""
