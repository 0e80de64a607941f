"""What is wrong at one step, by its likely cause; roundings are not.

Letters A to E are the miscompiles of nvdla/sw's compiler as docs/verify.md lists them. Every cause is read from the
loadable's own bytes and results, never from names.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.operations import ConvOperation, Operation, SdpOperation, SdpUnit
from nvdla_quant.execution.simulated import INT8_MAX, INT8_MIN
from nvdla_quant.hardware.targets import Precision
from nvdla_quant.network.graph import TABULATED, Convolution, Eltwise
from nvdla_quant.verification.judgement.verdicts import Cause, Finding, Weight
from nvdla_quant.verification.measures.examination import Examination, Examined
from nvdla_quant.verification.measures.local import HALF_LARGEST, Detail, Local, local_of
from nvdla_quant.verification.measures.weights import WeightCheck
from nvdla_quant.verification.search.mapping import base_name

SAME_ROW = 0.99
"""Correlation of a kernel row with a row of the network from which on it is that row."""

PRODUCT_ROUNDING = 128.0
"""Steps that a product may be off that was rescaled wrongly: one factor is rounded, the other up to 128."""

SHOWN = 4
"""Channels that a message names."""


def findings_of_step(examination: Examination, step: Examined) -> Iterator[Finding]:
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


def _overflow(examination: Examination, step: Examined, detail: Detail) -> Finding | None:
    del examination
    if "Softmax" not in step.kinds or np.isfinite(detail.expected).all():
        return None
    text = (
        f"scores beyond {HALF_LARGEST:.0f} are infinite for the runtime's softmax, which takes halves: probabilities "
    )
    text += "are not numbers; end the network before the softmax, or scale the scores down"
    return _finding(Cause.OVERFLOW, Weight.WRONG, step, text)


def _no_lookup(examination: Examination, step: Examined, detail: Detail) -> Finding | None:
    del detail
    if not step.kinds & {kind.kind for kind in TABULATED}:
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
    _overflow, _no_lookup, _product, _constant, _factor, _input_scale, _channels, _result,
)  # fmt: skip
"""Tried in this order; the last one explains anything."""

_GENERAL = frozenset({Cause.FACTOR, Cause.CHANNELS, Cause.RESULT})
"""What roundings that nobody counted may look like."""
