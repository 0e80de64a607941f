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

from nvdla_quant.evaluation.comparison import Comparison, with_holm
from nvdla_quant.report.evidence import Evidence, Repeated
from nvdla_quant.report.sheets import Sheet, backends, bounds, number, p_value
from nvdla_quant.report.style import signed

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
    choice : Repeated or None
        What to use; None where nothing can be recommended.
    headline : str
        The answer in one sentence.
    reasons : tuple[str, ...]
        Why, and how sure that is, one sentence or two each.
    pair : Comparison or None
        The choice beside fp32.
    """

    case: tuple[str, str]
    targets: tuple[str, ...]
    choice: Repeated | None
    headline: str
    reasons: tuple[str, ...]
    pair: Comparison | None = None


def recommend(evidence: Evidence) -> list[Recommendation]:
    """Return the answers, targets with the same one together."""
    found: list[Recommendation] = []
    for case in evidence.cases:
        targets = dict.fromkeys(group.target for group in evidence.repeated if group.case == case)
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
            delta = [100 * value for value in (one.pair.delta.value, one.pair.delta.low, one.pair.delta.high)]
            top1, reference = number(100 * one.pair.top1), number(100 * one.pair.baseline_top1)
            difference = number(delta[0], sign=True)
            numbers = (str(one.pair.n), top1, reference, difference, bounds(delta[1], delta[2], sign=True))
        name = "none" if one.choice is None else one.choice.name
        lines.setdefault((" on ".join(one.case), name, *numbers), []).extend(one.targets)
    head = ("model and data set", "targets", "use", "n", "top-1 %", "fp32's", "difference", "95 %")
    cells = tuple((key[0], ", ".join(targets), *key[1:]) for key, targets in lines.items())
    return Sheet("At a glance", head, 3, cells, ())


def closing(evidence: Evidence) -> str:
    """Return what the terminal says after the table: seeds, and the answers."""
    lines = []
    for group in evidence.repeated:
        if len(group.rows) > 1 and group.top1 is not None:
            top1 = group.top1
            figures = f"{number(top1.mean)} % (sd {number(top1.sd)}, {bounds(top1.low, top1.high)})"
            place = f"{' on '.join(group.case)}, {group.target} {group.name}"
            lines.append(f"{len(group.rows)} seeds: {place}: {figures}")
    lines += [f"{' on '.join(one.case)}, {', '.join(one.targets)}: {one.headline}" for one in recommend(evidence)]
    return "".join(f"{line}\n" for line in lines)


def _recommend(evidence: Evidence, case: tuple[str, str], target: str) -> Recommendation:
    """Return the answer for one target."""
    here = [group for group in evidence.repeated if (*group.case, group.target) == (*case, target)]
    wrong = [group for group in here if group.error is not None or _is_miscompiled(group)]
    pairs = [c for c in evidence.comparisons if (c.model, c.dataset, c.target) == (*case, target)]
    with_fp32 = {c.variant: c for c in pairs if c.kind == "fp32" and c.step is None}
    options = {group.name: group for group in here if group not in wrong and group.name in with_fp32}
    names = _list([group.name for group in wrong])
    broken = (f"Left out, since the output is wrong: {names}; see Wrong outputs.",) if wrong else ()
    if not options:
        return Recommendation(case, (target,), None, "No variant gives a right output that can be compared.", broken)
    against = with_holm([c for c in pairs if c.kind == "best"])
    # Equal means differ in their last bits: the best is the one that the others were compared with, where it is sound.
    named = [c.baseline for c, _ in against if c.baseline in options]
    best = named[0] if named else max(options, key=lambda name: with_fp32[name].top1)
    beside = {c.variant: p for c, p in against}
    equal = [name for name in options if name == best or beside.get(name, 0.0) >= LEVEL]
    doubts = {name: why for name, group in options.items() if (why := evidence.unverified(group))}
    choice, why = _choose(options, equal, best, with_fp32, doubts)
    reasons = [
        _cost(choice, with_fp32[choice.name]),
        *_unverified(choice, doubts),
        *why,
        *_ranking(options, equal, choice.name, beside, doubts),
        *_modes(pairs, options),
        *_fp16(options, choice, with_fp32),
        *broken,
        f"How it was measured: {backends(choice.rows[0])}.",
    ]
    headline = f"Use {_words(choice)}{', which is not verified' if choice.name in doubts else ''}."
    return Recommendation(case, (target,), choice, headline, tuple(reasons), with_fp32[choice.name])


def _unverified(choice: Repeated, doubts: Mapping[str, Sequence[str]]) -> list[str]:
    """Say that nobody knows whether the loadable of the choice is right, and why, where that is so."""
    if choice.name not in doubts:
        return []
    reasons = "; ".join(doubts[choice.name])
    return [f"Not verified: {reasons}. Its accuracy was measured as any other's; the loadable may still be wrong."]


def _is_miscompiled(group: Repeated) -> bool:
    return any(row["verdict"] == "miscompiled" for row in group.rows)


def _choose(
    options: dict[str, Repeated],
    equal: Sequence[str],
    best: str,
    with_fp32: dict[str, Comparison],
    doubts: Mapping[str, Sequence[str]],
) -> tuple[Repeated, list[str]]:
    """Return the variant to use, and what must be said if it is not among the best.

    Verified ones come first. Of variants that differ in the number of calibration images alone, the one with the most:
    a few images may be drawn badly another time.
    """
    int8 = [name for name in options if options[name]["precision"] == "int8"]

    def agreement(name: str) -> float:
        figures = options[name].agreement
        return figures.mean if figures is not None else 0.0

    if pool := [name for name in int8 if name in equal]:
        pool = [name for name in pool if name not in doubts] or pool
        nearest = options[max(pool, key=agreement)]
        same = [options[name] for name in pool if options[name].series == nearest.series]
        return max(same, key=lambda group: group.images or 0), []
    if not int8:
        return options[best], ["No int8 variant gives a right output here."]
    first = max(int8, key=lambda name: with_fp32[name].top1)
    if _kept(with_fp32[first])[0] >= KEPT:
        bytes_ = f"int8 still keeps {100 * KEPT:.0f} % of fp32's accuracy and needs half the bytes."
        return options[first], [f"{best} is more accurate, significantly; {bytes_}"]
    loss = with_fp32[first].delta
    lost = _interval(loss.value, loss.low, loss.high)
    said = f"int8 costs too much here: the best of it, {first}, differs from fp32 by {lost} points; see Layers."
    return options[best], [said]


def _cost(choice: Repeated, pair: Comparison) -> str:
    """Say what the choice costs beside fp32."""
    delta = pair.delta
    parts = [
        f"It has {number(100 * pair.top1)} % of {pair.n} test images right, fp32 {number(100 * pair.baseline_top1)} %: "
        f"a difference of {_interval(delta.value, delta.low, delta.high)} points (95 %, the same images; {pair.won} "
        f"won, {pair.lost} lost, p = {p_value(pair.p)})."
    ]
    if pair.p < LEVEL:
        parts.append("That is significant.")
    else:
        most = number(-100 * min(delta.low, 0.0))
        parts.append(
            f"That is not significant, which does not prove them equal: it costs at most {most} points (95 %)."
        )
    low, high = _kept(pair)
    kept = (
        "It keeps" if low >= KEPT else "It does not keep" if high < KEPT else "Too few images to say whether it keeps"
    )
    parts.append(f"{kept} {100 * KEPT:.0f} % of fp32's accuracy, MLPerf's bar.")
    if pair.seeds > 1 and choice.top1 is not None and choice.top1.sd is not None:
        sd = number(choice.top1.sd)
        parts.append(
            f"Means of {pair.seeds} draws of calibration images, between which top-1 has an sd of {sd} points."
        )
    return " ".join(parts)


def _kept(pair: Comparison) -> tuple[float, float]:
    """Return the bounds of the share of the baseline's accuracy that is kept."""
    base = pair.baseline_top1
    return ((base + pair.delta.low) / base, (base + pair.delta.high) / base) if base else (0.0, 0.0)


def _ranking(
    options: dict[str, Repeated],
    equal: Sequence[str],
    choice: str,
    beside: dict[str, float],
    doubts: Mapping[str, Sequence[str]],
) -> list[str]:
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
        if choice not in doubts and (unsure := [name for name in others if name in doubts]):
            said.append(f"Passed over, since they are not verified: {_list(unsure)}; see Wrong outputs.")
    if worse and choice in equal:
        said.append(f"Significantly less accurate than the best: {_list(worse)}.")
    return said


def _modes(pairs: Sequence[Comparison], options: dict[str, Repeated]) -> list[str]:
    """Say what the mode matters."""
    modes = with_holm([c for c in pairs if c.kind == "mode"])
    if not modes:
        return []
    apart = [(c, p) for c, p in modes if p < LEVEL]
    if not apart:
        least = min(p for _, p in modes)
        widest = max(abs(c.delta.value) for c, _ in modes)
        return [
            f"per-filter beside per-kernel: no significant difference in {len(modes)} pairs with the same calibrator "
            f"(at most {number(100 * widest)} points, smallest corrected p = {p_value(least)})."
        ]
    better = [c for c, _ in apart if c.delta.value > 0]
    largest = signed(100 * max((c.delta.value for c, _ in apart), key=abs))
    return [
        f"per-filter beside per-kernel: significantly better in {len(better)} and worse in {len(apart) - len(better)} "
        f"of {len(modes)} pairs with the same calibrator; largest difference {largest} points."
    ]


def _fp16(options: dict[str, Repeated], choice: Repeated, with_fp32: dict[str, Comparison]) -> list[str]:
    """Say what fp16 would bring."""
    return [
        f"{name} agrees with fp32 on {number(group.agreement.mean)} % of the images, at twice the bytes of weights and "
        f"activations: difference to fp32 {signed(100 * with_fp32[name].delta.value)} points."
        for name, group in options.items()
        if group["precision"] == "fp16" and group.name != choice.name and group.agreement is not None
    ]


def _words(choice: Repeated) -> str:
    """Return a variant in words."""
    if choice["mode"] is None:
        return f"{choice['precision']} ({choice.name})"
    images = "" if choice.images is None else f" with {choice.images} calibration images"
    return f"int8 {choice['mode']}{images} ({choice.name})"


def _interval(value: float, low: float, high: float) -> str:
    return f"{signed(100 * value)} ({signed(100 * low)} to {signed(100 * high)})"


def _list(names: Sequence[str], most: int = 4) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
