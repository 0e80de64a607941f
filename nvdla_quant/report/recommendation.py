"""Which variant to use, and why: computed from the comparisons, and worded as far as they carry.

The rule: of the variants whose output is right, those that these images cannot tell from the most accurate one (exact
McNemar tests, corrected by Holm) are equally good; int8 comes before fp16, since it needs half the bytes; of what is
left, the kind that agrees with fp32 on the most images, with its largest number of calibration images. A variant whose
loadable could not be verified is not wrong for that: it is named only where no verified one is as good, and the answer
says that it is not verified, and why. Where no int8
variant is among them, int8 is still named if it keeps 99 % of fp32's accuracy (MLPerf's bar) even at the lower end of
the interval; else fp16, or int8 with a warning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nvdla_quant.report.charts.style import signed
from nvdla_quant.report.evidence import Evidence
from nvdla_quant.report.frames import CASE, PLACE, Row, records, where
from nvdla_quant.report.tables import Sheet, sheet
from nvdla_quant.report.words import backends, bounds, number, p_value

LEVEL = 0.05
"""Corrected p-values below this are called significant."""
KEPT = 0.99
"""Share of fp32's accuracy that MLPerf's inference rules ask int8 to keep."""


@dataclass(frozen=True)
class Recommendation:
    """The answer for a case on some targets.

    Attributes
    ----------
    case : tuple[str, str]
        Model and data set.
    targets : tuple[str, ...]
        Targets with the same answer.
    choice : Row or None
        What to use, a line of the groups; None where nothing can be recommended.
    headline : str
        The answer in one sentence.
    reasons : tuple[str, ...]
        Why, and how sure that is, one sentence or two each.
    pair : Row or None
        The choice beside fp32, a line of the comparisons.
    """

    case: tuple[str, str]
    targets: tuple[str, ...]
    choice: Row | None
    headline: str
    reasons: tuple[str, ...]
    pair: Row | None = None


def recommend(evidence: Evidence) -> list[Recommendation]:
    """Return the answers, targets with the same one together."""
    found: list[Recommendation] = []
    for case in evidence.cases:
        targets = where(evidence.groups, CASE, case)["target"].unique()
        for one in (_recommend(evidence, case, target) for target in targets):
            if found and (found[-1].case, found[-1].headline, found[-1].reasons) == (case, one.headline, one.reasons):
                found[-1] = replace(found[-1], targets=found[-1].targets + one.targets)
            else:
                found.append(one)
    return found


def glance(answers: Sequence[Recommendation]) -> Sheet:
    """Return the answers in a line each; targets with the same choice and numbers share one."""
    lines: dict[tuple[str, ...], list[str]] = {}
    for one in answers:
        numbers: tuple[str, ...] = ("",) * 5
        if one.pair is not None:
            top1, reference = number(one.pair["top1"]), number(one.pair["baseline_top1"])
            difference = number(one.pair["delta"], sign=True)
            interval = bounds(one.pair["delta_low"], one.pair["delta_high"], sign=True)
            numbers = (str(one.pair["n"]), top1, reference, difference, interval)
        name = "none" if one.choice is None else one.choice["group"]
        lines.setdefault((" on ".join(one.case), name, *numbers), []).extend(one.targets)
    head = ("model and data set", "targets", "use", "n", "top-1 %", "fp32's", "difference", "95 %")
    cells = ((key[0], ", ".join(targets), *key[1:]) for key, targets in lines.items())
    return sheet("At a glance", head, 3, cells)


def closing(evidence: Evidence) -> str:
    """Return what the terminal says after the table: seeds, and the answers."""
    repeated = evidence.groups[(evidence.groups["seeds"] > 1) & evidence.groups["top1_mean"].notna()]
    lines = []
    for group in records(repeated):
        spread = f"sd {number(group['top1_sd'])}, {bounds(group['top1_min'], group['top1_max'])}"
        place = f"{group['model']} on {group['dataset']}, {group['target']} {group['group']}"
        lines.append(f"{group['seeds']} seeds: {place}: {number(group['top1_mean'])} % ({spread})")
    lines += [f"{' on '.join(one.case)}, {', '.join(one.targets)}: {one.headline}" for one in recommend(evidence)]
    return "".join(f"{line}\n" for line in lines)


def _recommend(evidence: Evidence, case: tuple[str, str], target: str) -> Recommendation:
    """Return the answer for one target."""
    here = records(where(evidence.groups, PLACE, (*case, target)))
    wrong = [group for group in here if group["error"] is not None or group["miscompiled"]]
    pairs = records(where(evidence.comparisons, PLACE, (*case, target)))
    with_fp32 = {c["variant"]: c for c in pairs if c["kind"] == "fp32" and c["score_step"] is None}
    options = {one["group"]: one for one in here if one not in wrong and one["group"] in with_fp32}
    names = _list([group["group"] for group in wrong])
    broken = (f"Left out, since the output is wrong: {names}; see Wrong outputs.",) if wrong else ()
    if not options:
        return Recommendation(case, (target,), None, "No variant gives a right output that can be compared.", broken)
    against = [c for c in pairs if c["kind"] == "best"]
    # Equal means differ in their last bits: the best is the one that the others were compared with, where it is sound.
    named = [c["baseline"] for c in against if c["baseline"] in options]
    best = named[0] if named else max(options, key=lambda name: float(with_fp32[name]["top1"]))
    beside = {c["variant"]: c["p_holm"] for c in against}
    equal = [name for name in options if name == best or beside.get(name, 0.0) >= LEVEL]
    choice, why = _choose(options, equal, best, with_fp32)
    pair = with_fp32[choice["group"]]
    reasons = [
        _cost(choice, pair),
        *_unverified(choice),
        *why,
        *_ranking(options, equal, choice["group"], beside),
        *_modes(pairs, options),
        *_fp16(options, choice, with_fp32),
        *broken,
        f"How it was measured: {backends(choice)}.",
    ]
    headline = f"Use {_words(choice)}{', which is not verified' if choice['unverified'] else ''}."
    return Recommendation(case, (target,), choice, headline, tuple(reasons), pair)


def _unverified(choice: Row) -> list[str]:
    """Say that nobody knows whether the loadable of the choice is right, and why, where that is so."""
    if not choice["unverified"]:
        return []
    said = "Its accuracy was measured as any other's; the loadable may still be wrong."
    return [f"Not verified: {choice['unverified']}. {said}"]


def _choose(
    options: Mapping[str, Row], equal: Sequence[str], best: str, with_fp32: Mapping[str, Row]
) -> tuple[Row, list[str]]:
    """Return the variant to use, and what must be said if it is not among the best.

    Verified ones come first. Of variants that differ in the number of calibration images alone, the one with the most:
    a few images may be drawn badly another time.
    """
    int8 = [name for name in options if options[name]["precision"] == "int8"]

    def agreement(name: str) -> float:
        return float(options[name]["agreement_mean"] or 0.0)

    if pool := [name for name in int8 if name in equal]:
        pool = [name for name in pool if not options[name]["unverified"]] or pool
        nearest = options[max(pool, key=agreement)]
        same = [options[name] for name in pool if options[name]["series"] == nearest["series"]]
        return max(same, key=lambda group: int(group["images"] or 0)), []
    if not int8:
        return options[best], ["No int8 variant gives a right output here."]
    first = max(int8, key=lambda name: float(with_fp32[name]["top1"]))
    if _kept(with_fp32[first])[0] >= KEPT:
        bytes_ = f"int8 still keeps {100 * KEPT:.0f} % of fp32's accuracy and needs half the bytes."
        return options[first], [f"{best} is more accurate, significantly; {bytes_}"]
    lost = _interval(with_fp32[first])
    said = f"int8 costs too much here: the best of it, {first}, differs from fp32 by {lost} points; see Layers."
    return options[best], [said]


def _cost(choice: Row, pair: Row) -> str:
    """Say what the choice costs beside fp32."""
    right, reference = number(pair["top1"]), number(pair["baseline_top1"])
    parts = [
        f"It has {right} % of {pair['n']} test images right, fp32 {reference} %: a difference of {_interval(pair)} "
        f"points (95 %, the same images; {pair['won']} won, {pair['lost']} lost, p = {p_value(pair['p'])})."
    ]
    if pair["p"] < LEVEL:
        parts.append("That is significant.")
    else:
        most = number(-min(pair["delta_low"], 0.0))
        parts.append(
            f"That is not significant, which does not prove them equal: it costs at most {most} points (95 %)."
        )
    low, high = _kept(pair)
    kept = (
        "It keeps" if low >= KEPT else "It does not keep" if high < KEPT else "Too few images to say whether it keeps"
    )
    parts.append(f"{kept} {100 * KEPT:.0f} % of fp32's accuracy, MLPerf's bar.")
    if pair["seeds"] > 1 and choice["top1_sd"] is not None:
        sd = number(choice["top1_sd"])
        parts.append(
            f"Means of {pair['seeds']} draws of calibration images, between which top-1 has an sd of {sd} points."
        )
    return " ".join(parts)


def _kept(pair: Row) -> tuple[float, float]:
    """Return the bounds of the share of the baseline's accuracy that is kept."""
    base = pair["baseline_top1"]
    return ((base + pair["delta_low"]) / base, (base + pair["delta_high"]) / base) if base else (0.0, 0.0)


def _ranking(options: Mapping[str, Row], equal: Sequence[str], choice: str, beside: Mapping[str, float]) -> list[str]:
    """Say how far the images rank the variants."""
    worse = [name for name in options if name not in equal]
    others = [name for name in equal if name != choice]
    said = []
    if others and choice in equal:
        least = min((beside[name] for name in equal if name in beside), default=1.0)
        said.append(
            f"These images do not tell it from {len(others)} of the {len(options) - 1} others ({_list(others)}; "
            f"smallest corrected p = {p_value(least)}): any of them will do. The one named is int8, which needs half "
            "the bytes, and of the int8 ones the kind that agrees with fp32 on the most images."
        )
        unsure = [name for name in others if options[name]["unverified"]]
        if unsure and not options[choice]["unverified"]:
            said.append(f"Passed over, since they are not verified: {_list(unsure)}; see Wrong outputs.")
    if worse and choice in equal:
        said.append(f"Significantly less accurate than the best: {_list(worse)}.")
    return said


def _modes(pairs: Sequence[Row], options: Mapping[str, Row]) -> list[str]:
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
            f"(at most {number(widest)} points, smallest corrected p = {p_value(least)})."
        ]
    better = [c for c in apart if c["delta"] > 0]
    largest = signed(max((c["delta"] for c in apart), key=abs))
    return [
        f"per-filter beside per-kernel: significantly better in {len(better)} and worse in {len(apart) - len(better)} "
        f"of {len(modes)} pairs with the same calibrator; largest difference {largest} points."
    ]


def _fp16(options: Mapping[str, Row], choice: Row, with_fp32: Mapping[str, Row]) -> list[str]:
    """Say what fp16 would bring."""
    return [
        f"{name} agrees with fp32 on {number(group['agreement_mean'])} % of the images, at twice the bytes of weights "
        f"and activations: difference to fp32 {signed(with_fp32[name]['delta'])} points."
        for name, group in options.items()
        if group["precision"] == "fp16" and name != choice["group"] and group["agreement_mean"] is not None
    ]


def _words(choice: Row) -> str:
    """Return a variant in words."""
    if choice["mode"] is None:
        return f"{choice['precision']} ({choice['group']})"
    images = "" if choice["images"] is None else f" with {choice['images']} calibration images"
    return f"int8 {choice['mode']}{images} ({choice['group']})"


def _interval(pair: Row) -> str:
    return f"{signed(pair['delta'])} ({signed(pair['delta_low'])} to {signed(pair['delta_high'])})"


def _list(names: Sequence[str], most: int = 4) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
