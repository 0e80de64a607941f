"""Which variant of a network to use that no label says is right, and why.

The rule: the fastest of the variants that keep as much of fp32's outputs as the user asked for. By SQNR, 99 % means
that noise is at most 1 % of the signal, 20 dB; by the numbers of a command, that their mean is within 1 % of fp32's. A
variant keeps it where the lower end of its interval does; or which these images cannot tell from the best one (exact
sign tests, corrected by Holm), and of which they do not show that it does not. Of those that are as fast, int8 comes
before fp16, since it needs half the bytes, then the one with the largest SQNR. Where none keeps it, one of the best is
named.
"""

from collections.abc import Mapping, Sequence
from math import inf, log10
from statistics import fmean

from nvdla_quant.report.charts.style import signed
from nvdla_quant.report.evidence import Evidence
from nvdla_quant.report.frames import PLACE, Row, records, where
from nvdla_quant.report.recommendation.choice import choose, in_words, listed, times_of, unverified
from nvdla_quant.report.recommendation.record import LEVEL, Recommendation
from nvdla_quant.report.words import backends, bounds, number, of_command, p_said, significant


def recommend_by_outputs(evidence: Evidence, case: tuple[str, str], target: str, keep: float) -> Recommendation:
    """Return the answer for one target."""
    here = records(where(evidence.fidelity_groups, PLACE, (*case, target)))
    wrong = [group for group in here if group["error"] is not None or group["miscompiled"]]
    options = {one["group"]: one for one in here if one not in wrong}
    names = listed([group["group"] for group in wrong])
    broken = (f"Left out, since an output is wrong: {names}; see Wrong outputs.",) if wrong else ()
    if not options:
        nothing = "No variant gives right outputs."
        return Recommendation(case, (target,), (), nothing, broken, by_labels=False)
    pairs = records(where(evidence.fidelity_pairs, PLACE, (*case, target)))
    best = _best(options, pairs)
    beside = {pair["variant"]: pair["p_holm"] for pair in pairs if pair["kind"] == "best"}
    equal = [name for name in options if name == best or beside.get(name, 0.0) >= LEVEL]
    kept = {name: _kept(one, keep) for name, one in options.items()}
    keeping = [name for name, (low, high) in kept.items() if low >= 0 or (name in equal and high >= 0)]
    choice = choose(options, keeping or equal, equal, "sqnr_mean")
    bar = _bar(choice, keep)
    reasons = [
        _worth(choice, [pair for pair in pairs if pair["kind"] == "fp32"]),
        *unverified(choice),
        *_ranking(options, equal, best, choice["group"]),
        *_gains(pairs, "mode", "per-filter beside per-kernel"),
        *_gains(pairs, "method", ""),
        *broken,
        f"How it was measured: {backends(choice)}.",
    ]
    headline = _headline(choice, keeping, kept[choice["group"]][0] >= 0, bar)
    times = times_of(target, choice, options, keeping, f"it does not keep {bar}")
    return Recommendation(case, (target,), (choice,), headline, tuple(reasons), None, (times,), by_labels=False)


def _best(options: Mapping[str, Row], pairs: Sequence[Row]) -> str:
    """Return the best: what the others were compared with, or where that is left out the largest SQNR."""
    named = [pair["baseline"] for pair in pairs if pair["kind"] == "best" and pair["baseline"] in options]
    return str(named[0]) if named else max(options, key=lambda name: float(options[name]["sqnr_mean"] or 0.0))


def _kept(one: Row, keep: float) -> tuple[float, float]:
    """Return how far the ends of a variant's interval are above what is asked for: 0 is just enough."""
    if one["number"] is None:
        least = -10 * log10(1 - keep / 100) if keep < 100 else inf
        ends = [one[name] for name in ("sqnr_low", "sqnr_high", "sqnr_min", "sqnr_max") if one[name] is not None]
        return min(ends) - least, max(ends) - least
    allowed = abs(one["number_fp32"]) * (1 - keep / 100)
    low, high = one["number_delta_low"], one["number_delta_high"]
    return (allowed - high, allowed - low) if one["lower_is_better"] else (allowed + low, allowed + high)


def _bar(one: Row, keep: float) -> str:
    """Return in words what is asked for."""
    if one["number"] is None:
        least = f"{-10 * log10(1 - keep / 100):.3g} dB" if keep < 100 else "no noise at all"
        return f"{keep:g} % of its outputs' signal (an SQNR of {least})"
    return f"the command's numbers of fp32 within {100 - keep:g} %"


def _headline(choice: Row, keeping: Sequence[str], is_sure: bool, bar: str) -> str:
    """Return the answer: what to use, and what it is beside the others."""
    doubt = ", which is not verified" if choice["unverified"] else ""
    if not keeping:
        return f"No variant keeps {bar}; of the best, use {in_words(choice)}{doubt}."
    if choice["ms"] is None:
        return f"Use {in_words(choice)}{doubt}."
    also = ", and" if doubt else ","
    return f"Use {in_words(choice)}{doubt}{also} the fastest that {'keeps' if is_sure else 'may keep'} {bar}."


def _worth(choice: Row, with_fp32: Sequence[Row]) -> str:
    """Say what the outputs of the choice are worth beside fp32's."""
    interval = bounds(choice["sqnr_low"], choice["sqnr_high"])
    parts = [f"Its SQNR beside fp32 is {number(choice['sqnr'])} dB ({interval}, 95 %, {choice['n']} images)."]
    if choice["seeds"] > 1 and choice["sqnr_sd"] is not None:
        parts.append(f"{choice['seeds']} draws of calibration images have an sd of {number(choice['sqnr_sd'])} dB.")
    if choice["outputs"] > 1:
        worst = f"{choice['worst_output']} with {number(choice['worst_sqnr'])} dB"
        parts.append(f"The worst of {choice['outputs']} outputs is {worst}.")
    if choice["psnr"] is not None:
        parts.append(f"PSNR: {number(choice['psnr'])} dB.")
    if choice["max_error_steps"] is not None:
        parts.append(f"Largest error: {significant(choice['max_error_steps'])} steps of an output.")
    if choice["pixel_agreement"] is not None:
        parts.append(f"The highest channel is fp32's in {number(choice['pixel_agreement'])} % of the pixels.")
    for pair in (one for one in with_fp32 if one["variant"] == choice["group"]):
        low, high = (of_command(pair[f"value_delta_{end}"], sign=True) for end in ("low", "high"))
        ours, theirs = of_command(pair["value"]), of_command(pair["baseline_value"])
        delta = of_command(pair["value_delta"], sign=True)
        parts.append(
            f"The command gives it {ours} and fp32 {theirs}, a difference of {delta} ({low} to {high}, 95 %; "
            f"{pair['won']} images better, {pair['lost']} worse, {p_said(pair['p'])})."
        )
    return " ".join(parts)


def _ranking(options: Mapping[str, Row], equal: Sequence[str], best: str, choice: str) -> list[str]:
    """Say how far the images rank the variants."""
    others = [name for name in equal if name != choice]
    said = []
    if choice not in equal:
        said.append(f"{best} is nearer to fp32, significantly; {choice} is good enough and faster, or int8.")
    elif others:
        said.append(f"These images do not tell it from {listed(others)}.")
    worse = [name for name in options if name not in equal and name != choice]
    if worse and choice in equal:
        said.append(f"Significantly farther from fp32: {listed(worse)}.")
    return said


def _gains(pairs: Sequence[Row], kind: str, title: str) -> list[str]:
    """Say what one kind of pairs gains; methods by what each adds to the name, the most gainful first."""
    found: dict[str, list[Row]] = {}
    for pair in (one for one in pairs if one["kind"] == kind):
        name = title or f"{pair['variant'].removeprefix(pair['baseline'] + '-')} beside none"
        found.setdefault(name, []).append(pair)
    means = {name: fmean(pair["value_delta"] for pair in of_one) for name, of_one in found.items()}
    said = []
    for name in sorted(found, key=lambda name: -means[name]):
        apart = [pair for pair in found[name] if pair["p_holm"] < LEVEL]
        better = sum(pair["won"] > pair["lost"] for pair in apart)
        by_sqnr = found[name][0]["measure"] == "sqnr"
        gain = f"{signed(means[name])} dB" if by_sqnr else of_command(means[name], sign=True)
        said.append(
            f"{name}: {gain} in the mean of {len(found[name])} pairs; significantly better in "
            f"{better}, worse in {len(apart) - better}."
        )
    return said
