"""Which variant to use, and why: computed from the comparisons and the times, and worded as far as they carry.

The rule: the fastest of the variants that keep the share of fp32's accuracy that the user asked for. A variant keeps it
whose output is right and where the lower end of its interval does; or which these images cannot tell from the most
accurate one (exact McNemar tests, corrected by Holm), and of which they do not show that it does not. Of those that are
as fast, int8 comes before fp16, since it needs half the bytes; of what is left, what the images cannot tell from the
most accurate one, then the kind that agrees with fp32 on the most images, with its largest number of calibration
images. A variant whose loadable could not be verified is not wrong for that: it is named only where no verified one of
its precision is as good, and the answer says that it is not verified, and why. Where no variant keeps what was asked
for, the answer says so and names one of the most accurate.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from math import inf
from statistics import fmean

from nvdla_quant.report.charts.style import signed
from nvdla_quant.report.evidence import Evidence
from nvdla_quant.report.frames import CASE, PLACE, Row, records, where
from nvdla_quant.report.tables import Sheet, sheet
from nvdla_quant.report.words import EXTRAPOLATED, backends, bound_of, bounds, milliseconds, number, p_value

_BESIDE = 4
"""Slower variants that are named beside the choice."""
LEVEL = 0.05
"""Corrected p-values below this are called significant."""
KEPT = 99.0
"""Percent of fp32's accuracy that MLPerf's inference rules ask int8 to keep."""
ALIKE = 1.01
"""Times that differ by less than this factor are as good as the same: estimates are not that exact."""


@dataclass(frozen=True)
class Recommendation:
    """The answer for a case on some targets.

    Attributes
    ----------
    case : tuple[str, str]
        Model and data set.
    targets : tuple[str, ...]
        Targets with the same answer.
    choices : tuple[Row, ...]
        What to use on each of them, lines of the groups; none where nothing can be recommended.
    headline : str
        The answer in one sentence.
    reasons : tuple[str, ...]
        Why, and how sure that is, one sentence or two each.
    pair : Row or None
        The choice beside fp32, a line of the comparisons.
    times : tuple[str, ...]
        How long it takes on each target, and the others beside it.
    """

    case: tuple[str, str]
    targets: tuple[str, ...]
    choices: tuple[Row, ...]
    headline: str
    reasons: tuple[str, ...]
    pair: Row | None = None
    times: tuple[str, ...] = ()

    @property
    def choice(self) -> Row | None:
        """Return what to use, as the first target has it; None where nothing can be recommended."""
        return next(iter(self.choices), None)


def recommend(evidence: Evidence, keep: float = KEPT) -> list[Recommendation]:
    """Return the answers, targets with the same one together; `keep` is in percent of fp32's accuracy."""
    found: list[Recommendation] = []
    for case in evidence.cases:
        targets = where(evidence.groups, CASE, case)["target"].unique()
        for one in (_recommend(evidence, case, target, keep) for target in targets):
            if found and (found[-1].case, found[-1].headline, found[-1].reasons) == (case, one.headline, one.reasons):
                last = found[-1]
                together = {name: getattr(last, name) + getattr(one, name) for name in ("targets", "choices", "times")}
                found[-1] = replace(last, **together)
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
        for target, choice in zip_longest(one.targets, one.choices):
            timed = ("", "") if choice is None else (milliseconds(choice), choice["bound"] or "")
            name = "none" if choice is None else choice["group"]
            lines.setdefault((" on ".join(one.case), name, *numbers, *timed), []).append(target)
    head = ("model and data set", "targets", "use", "n", "top-1 %", "fp32's", "difference", "95 %", "ms", "bound")
    cells = ((key[0], ", ".join(targets), *key[1:]) for key, targets in lines.items())
    return sheet("At a glance", head, 3, cells, tuple(_over_all(answers)))


def _over_all(answers: Sequence[Recommendation]) -> Iterator[str]:
    """Yield which target is the fastest with what is named for it, for each case with several, and what ms are."""
    timed = [(one, *pair) for one in answers for pair in zip(one.targets, one.choices, strict=False)]
    timed = [(one, target, choice) for one, target, choice in timed if choice["ms"] is not None]
    for case in dict.fromkeys(one.case for one, _, _ in timed):
        here = [(choice["ms"], target, choice) for one, target, choice in timed if one.case == case]
        if len(here) > 1:
            _, target, choice = min(here, key=lambda found: float(found[0]))
            said = f"{choice['group']} on {target}, {milliseconds(choice)} ms"
            yield f"{' on '.join(case)}, the fastest of all targets: {said}."
    if timed:
        marked = f" {EXTRAPOLATED}" if any(choice["extrapolated"] for _, _, choice in timed) else ""
        yield f"ms: of an image on the hardware, estimated from the loadable; see Time.{marked}"


def closing(evidence: Evidence, keep: float = KEPT) -> str:
    """Return what the terminal says after the table: seeds, and the answers."""
    repeated = evidence.groups[(evidence.groups["seeds"] > 1) & evidence.groups["top1_mean"].notna()]
    lines = []
    for group in records(repeated):
        spread = f"sd {number(group['top1_sd'])}, {bounds(group['top1_min'], group['top1_max'])}"
        place = f"{group['model']} on {group['dataset']}, {group['target']} {group['group']}"
        lines.append(f"{group['seeds']} seeds: {place}: {number(group['top1_mean'])} % ({spread})")
    for one in recommend(evidence, keep):
        timed = zip(one.targets, one.choices, strict=False)
        times = [f"{target} {milliseconds(choice)} ms" for target, choice in timed if choice["ms"] is not None]
        said = f"{one.headline} Estimated: {', '.join(times)}." if times else one.headline
        lines.append(f"{' on '.join(one.case)}, {', '.join(one.targets)}: {said}")
    return "".join(f"{line}\n" for line in lines)


def _recommend(evidence: Evidence, case: tuple[str, str], target: str, keep: float) -> Recommendation:
    """Return the answer for one target."""
    here = records(where(evidence.groups, PLACE, (*case, target)))
    wrong = [group for group in here if group["error"] is not None or group["miscompiled"]]
    pairs = records(where(evidence.comparisons, PLACE, (*case, target)))
    with_fp32 = {c["variant"]: c for c in pairs if c["kind"] == "fp32" and c["score_step"] is None}
    options = {one["group"]: one for one in here if one not in wrong and one["group"] in with_fp32}
    names = _list([group["group"] for group in wrong])
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
    choice = _choose(options, keeping or equal, equal)
    pair = with_fp32[choice["group"]]
    why = _beside_better(options, choice, best, equal, keeping, with_fp32, keep)
    reasons = [
        _cost(choice, pair, keep),
        *_unverified(choice),
        *why,
        *_ranking(options, equal, choice["group"], beside),
        *_modes(pairs),
        *_methods(pairs),
        *_fp16(options, choice, with_fp32),
        *broken,
        f"How it was measured: {backends(choice)}.",
    ]
    headline = _headline(choice, keeping, _kept(pair)[0] >= keep, keep)
    times = _times(target, choice, options, keeping)
    return Recommendation(case, (target,), (choice,), headline, tuple(reasons), pair, (times,))


def _headline(choice: Row, keeping: Sequence[str], is_sure: bool, keep: float) -> str:
    """Return the answer: what to use, and what it is beside the others."""
    doubt = ", which is not verified" if choice["unverified"] else ""
    if not keeping:
        return f"No variant keeps {keep:g} % of fp32's accuracy; of the most accurate, use {_words(choice)}{doubt}."
    if choice["ms"] is None:
        return f"Use {_words(choice)}{doubt}."
    kept = "keeps" if is_sure else "may keep"
    also = ", and" if doubt else ","
    return f"Use {_words(choice)}{doubt}{also} the fastest that {kept} {keep:g} % of fp32's accuracy."


def _unverified(choice: Row) -> list[str]:
    """Say that nobody knows whether the loadable of the choice is right, and why, where that is so."""
    if not choice["unverified"]:
        return []
    said = "Its accuracy was measured as any other's; the loadable may still be wrong."
    return [f"Not verified: {choice['unverified']}. {said}"]


def _keeping(equal: Sequence[str], with_fp32: Mapping[str, Row], options: Mapping[str, Row], keep: float) -> list[str]:
    """Return the variants that keep the accuracy, or may: see the head of this file."""
    kept = {name: _kept(with_fp32[name]) for name in options}
    return [name for name, (low, high) in kept.items() if low >= keep or (name in equal and high >= keep)]


def _choose(options: Mapping[str, Row], pool: Sequence[str], equal: Sequence[str]) -> Row:
    """Return the variant to use of a `pool`.

    Of each precision verified ones come first. Of variants that differ in the number of calibration images alone, the
    one with the most: a few images may be drawn badly another time.
    """

    def verified(name: str) -> bool:
        return not options[name]["unverified"]

    sound = {options[name]["precision"] for name in pool if verified(name)}
    pool = [name for name in pool if verified(name) or options[name]["precision"] not in sound]
    known = [float(options[name]["ms"]) for name in pool if options[name]["ms"] is not None]
    if known:
        pool = [name for name in pool if (options[name]["ms"] or inf) <= ALIKE * min(known)]
    pool = [name for name in pool if options[name]["precision"] == "int8"] or pool
    pool = [name for name in pool if name in equal] or pool
    nearest = options[max(pool, key=lambda name: float(options[name]["agreement_mean"] or 0.0))]
    same = [options[name] for name in pool if options[name]["series"] == nearest["series"]]
    return max(same, key=lambda group: int(group["images"] or 0))


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


def _times(target: str, choice: Row, options: Mapping[str, Row], keeping: Sequence[str]) -> str:
    """Say how long the choice takes on a target, by what, and how much longer or shorter the others."""
    if choice["ms"] is None:
        return f"{target}: how long it takes could not be estimated."
    base = float(choice["ms"])
    said = [f"{target}: {milliseconds(choice)} ms an image ({choice['cycles']:,} cycles, {bound_of(choice)})"]
    others = [one for one in options.values() if one is not choice and one["ms"] is not None]
    ratios = [(float(one["ms"]) / base, one) for one in others]
    alike = [one["group"] for ratio, one in ratios if 1 / ALIKE <= ratio <= ALIKE]
    if alike:
        said.append(f"as fast to 1 %: {_list(alike)}")
    longer = [(ratio, one) for ratio, one in ratios if ratio > ALIKE]
    said += [f"{one['group']} takes {ratio:.2f} times as long ({bound_of(one)})" for ratio, one in longer[:_BESIDE]]
    if len(longer) > _BESIDE:
        most = max(ratio for ratio, _ in longer)
        said.append(f"{len(longer) - _BESIDE} more take up to {most:.2f} times as long")
    for ratio, one in (found for found in ratios if found[0] < 1 / ALIKE):
        why = "it is not verified" if one["group"] in keeping else "it does not keep the accuracy"
        said.append(f"{one['group']} takes {ratio:.2f} times as long, but {why}")
    return f"{'; '.join(said)}."


def _cost(choice: Row, pair: Row, keep: float) -> str:
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
            f"These images do not tell it from {len(others)} of the {len(options) - 1} others ({_list(others)}; "
            f"smallest corrected p = {p_value(least)}): any of them will do. The one named is the fastest; of those as "
            "fast to 1 % int8 comes first, which needs half the bytes, then the kind that agrees with fp32 on the most "
            "images."
        )
        unsure = [name for name in others if options[name]["unverified"]]
        if unsure and not options[choice]["unverified"]:
            said.append(f"Passed over, since they are not verified: {_list(unsure)}; see Wrong outputs.")
    if worse and choice in equal:
        said.append(f"Significantly less accurate than the best: {_list(worse)}.")
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
            f"(at most {number(widest)} points, smallest corrected p = {p_value(least)})."
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
