"""Which variant of a classifier to use, and why.

The rule: the fastest of the variants that keep the share of fp32's accuracy that the user asked for. A variant keeps it
whose output is right and where the lower end of its interval does; or which these images cannot tell from the most
accurate one (exact McNemar tests, corrected by Holm), and of which they do not show that it does not. Of those that are
as fast, int8 comes before fp16, since it needs half the bytes; of what is left, what the images cannot tell from the
most accurate one, then the kind that agrees with fp32 on the most images, with its largest number of calibration
images. A variant whose loadable could not be verified is not wrong for that: it is named only where no verified one of
its precision is as good, and the answer says that it is not verified, and why. Where no variant keeps what was asked
for, the answer says so and names one of the most accurate.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from nvdla_quant.report.charts.style import signed
from nvdla_quant.report.evidence import Evidence
from nvdla_quant.report.frames import PLACE, Row, records, where
from nvdla_quant.report.recommendation.choice import choose, in_words, listed, times_of, unverified
from nvdla_quant.report.recommendation.record import KEPT, LEVEL, Recommendation
from nvdla_quant.report.words import backends, number, p_said


def recommend_by_labels(evidence: Evidence, case: tuple[str, str], target: str, keep: float) -> Recommendation:
    """Return the answer for one target."""
    here = records(where(evidence.groups, PLACE, (*case, target)))
    wrong = [group for group in here if group["error"] is not None or group["miscompiled"]]
    pairs = records(where(evidence.comparisons, PLACE, (*case, target)))
    with_fp32 = {c["variant"]: c for c in pairs if c["kind"] == "fp32" and c["score_step"] is None}
    options = {one["group"]: one for one in here if one not in wrong and one["group"] in with_fp32}
    names = listed([group["group"] for group in wrong])
    broken = (f"Left out, since the output is wrong: {names}; see Wrong outputs.",) if wrong else ()
    if not options:
        return Recommendation(case, (target,), (), "No variant gives a right output that can be compared.", broken)
    against = [c for c in pairs if c["kind"] == "best"]
    # Equal means differ in their last bits: the best is the one that the others were compared with, where it is sound.
    named = [c["baseline"] for c in against if c["baseline"] in options]
    best = named[0] if named else max(options, key=lambda name: float(with_fp32[name]["top1"]))
    beside = {c["variant"]: c["p_holm"] for c in against}
    equal = [name for name in options if name == best or beside.get(name, 0.0) >= LEVEL]
    keeping = _keeping(equal, with_fp32, options, keep)
    choice = choose(options, keeping or equal, equal, "agreement_mean")
    pair = with_fp32[choice["group"]]
    why = _beside_better(options, choice, best, equal, keeping, with_fp32, keep)
    reasons = [
        _cost(choice, pair, keep),
        *unverified(choice),
        *why,
        *_ranking(options, equal, choice["group"], beside),
        *_modes(pairs),
        *_methods(pairs),
        *_fp16(options, choice, with_fp32),
        *broken,
        f"How it was measured: {backends(choice)}.",
    ]
    headline = _headline(choice, keeping, _kept(pair)[0] >= keep, keep)
    times = times_of(target, choice, options, keeping, "it does not keep the accuracy")
    return Recommendation(case, (target,), (choice,), headline, tuple(reasons), pair, (times,))


def _headline(choice: Row, keeping: Sequence[str], is_sure: bool, keep: float) -> str:
    """Return the answer: what to use, and what it is beside the others."""
    doubt = ", which is not verified" if choice["unverified"] else ""
    if not keeping:
        return f"No variant keeps {keep:g} % of fp32's accuracy; of the most accurate, use {in_words(choice)}{doubt}."
    if choice["ms"] is None:
        return f"Use {in_words(choice)}{doubt}."
    kept = "keeps" if is_sure else "may keep"
    also = ", and" if doubt else ","
    return f"Use {in_words(choice)}{doubt}{also} the fastest that {kept} {keep:g} % of fp32's accuracy."


def _keeping(equal: Sequence[str], with_fp32: Mapping[str, Row], options: Mapping[str, Row], keep: float) -> list[str]:
    """Return the variants that keep the accuracy, or may: see the head of this file."""
    kept = {name: _kept(with_fp32[name]) for name in options}
    return [name for name, (low, high) in kept.items() if low >= keep or (name in equal and high >= keep)]


def _beside_better(
    options: Mapping[str, Row],
    choice: Row,
    best: str,
    equal: Sequence[str],
    keeping: Sequence[str],
    with_fp32: Mapping[str, Row],
    keep: float,
) -> list[str]:
    """Say what must be said where the choice is not among the best, or is not int8."""
    if choice["group"] not in equal:
        said = f"{choice['group']} still keeps {keep:g} % of fp32's accuracy and is the fastest that does."
        return [f"{best} is more accurate, significantly; {said}"]
    if choice["precision"] == "int8":
        return []
    int8 = [name for name in options if options[name]["precision"] == "int8"]
    if not int8:
        return ["No int8 variant gives a right output here."]
    if set(int8) & set(keeping or equal):
        return []
    first = max(int8, key=lambda name: float(with_fp32[name]["top1"]))
    lost = _interval(with_fp32[first])
    return [f"int8 costs too much here: the best of it, {first}, differs from fp32 by {lost} points; see Layers."]


def _cost(choice: Row, pair: Row, keep: float) -> str:
    """Say what the choice costs beside fp32."""
    right, reference = number(pair["top1"]), number(pair["baseline_top1"])
    parts = [
        f"It has {right} % of {pair['n']} test images right, fp32 {reference} %: a difference of {_interval(pair)} "
        f"points (95 %, the same images; {pair['won']} won, {pair['lost']} lost, {p_said(pair['p'])})."
    ]
    if pair["p"] < LEVEL:
        parts.append("That is significant.")
    else:
        most = number(-min(pair["delta_low"], 0.0))
        parts.append(
            f"That is not significant, which does not prove them equal: it costs at most {most} points (95 %)."
        )
    low, high = _kept(pair)
    bar = ", MLPerf's bar" if keep == KEPT else ""
    kept = (
        "It keeps" if low >= keep else "It does not keep" if high < keep else "Too few images to say whether it keeps"
    )
    parts.append(f"{kept} {keep:g} % of fp32's accuracy{bar}.")
    if pair["seeds"] > 1 and choice["top1_sd"] is not None:
        sd = number(choice["top1_sd"])
        parts.append(
            f"Means of {pair['seeds']} draws of calibration images, between which top-1 has an sd of {sd} points."
        )
    return " ".join(parts)


def _kept(pair: Row) -> tuple[float, float]:
    """Return the bounds of the share of the baseline's accuracy that is kept, in percent."""
    base = pair["baseline_top1"]
    low, high = (pair[f"delta_{end}"] for end in ("low", "high"))
    return (100 * (base + low) / base, 100 * (base + high) / base) if base else (0.0, 0.0)


def _ranking(options: Mapping[str, Row], equal: Sequence[str], choice: str, beside: Mapping[str, float]) -> list[str]:
    """Say how far the images rank the variants."""
    worse = [name for name in options if name not in equal]
    others = [name for name in equal if name != choice]
    said = []
    if others and choice in equal:
        least = min((beside[name] for name in equal if name in beside), default=1.0)
        said.append(
            f"These images do not tell it from {len(others)} of the {len(options) - 1} others ({listed(others)}; "
            f"smallest corrected {p_said(least)}): any of them will do. The one named is the fastest; of those as "
            "fast to 1 % int8 comes first, which needs half the bytes, then the kind that agrees with fp32 on the most "
            "images."
        )
        unsure = [name for name in others if options[name]["unverified"]]
        if unsure and not options[choice]["unverified"]:
            said.append(f"Passed over, since they are not verified: {listed(unsure)}; see Wrong outputs.")
    if worse and choice in equal:
        said.append(f"Significantly less accurate than the best: {listed(worse)}.")
    return said


def _modes(pairs: Sequence[Row]) -> list[str]:
    """Say what the mode matters."""
    modes = [c for c in pairs if c["kind"] == "mode"]
    if not modes:
        return []
    apart = [c for c in modes if c["p_holm"] < LEVEL]
    if not apart:
        least = min(c["p_holm"] for c in modes)
        widest = max(abs(c["delta"]) for c in modes)
        return [
            f"per-filter beside per-kernel: no significant difference in {len(modes)} pairs with the same calibrator "
            f"(at most {number(widest)} points, smallest corrected {p_said(least)})."
        ]
    better = [c for c in apart if c["delta"] > 0]
    largest = signed(max((c["delta"] for c in apart), key=abs))
    return [
        f"per-filter beside per-kernel: significantly better in {len(better)} and worse in {len(apart) - len(better)} "
        f"of {len(modes)} pairs with the same calibrator; largest difference {largest} points."
    ]


def _methods(pairs: Sequence[Row]) -> list[str]:
    """Say what each method gains, in the same variant and mode without it; the most gainful first."""
    found: dict[str, list[Row]] = {}
    for pair in pairs:
        if pair["kind"] == "method":
            found.setdefault(pair["variant"].removeprefix(f"{pair['baseline']}-"), []).append(pair)
    means = {name: fmean(pair["delta"] for pair in of_one) for name, of_one in found.items()}
    said = []
    for name in sorted(found, key=lambda name: -means[name]):
        apart = [pair["delta"] for pair in found[name] if pair["p_holm"] < LEVEL]
        better = sum(delta > 0 for delta in apart)
        said.append(
            f"{name} beside none: {signed(means[name])} points in the mean of {len(found[name])} pairs; significantly "
            f"better in {better}, worse in {len(apart) - better}."
        )
    return said


def _fp16(options: Mapping[str, Row], choice: Row, with_fp32: Mapping[str, Row]) -> list[str]:
    """Say what fp16 would bring."""
    return [
        f"{name} agrees with fp32 on {number(group['agreement_mean'])} % of the images, at twice the bytes of weights "
        f"and activations: difference to fp32 {signed(with_fp32[name]['delta'])} points."
        for name, group in options.items()
        if group["precision"] == "fp16" and name != choice["group"] and group["agreement_mean"] is not None
    ]


def _interval(pair: Row) -> str:
    return f"{signed(pair['delta'])} ({signed(pair['delta_low'])} to {signed(pair['delta_high'])})"
