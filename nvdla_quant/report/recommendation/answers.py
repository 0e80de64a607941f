"""The answers for a whole sweep, in a line each and for the terminal."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest

from nvdla_quant.report.evidence import Evidence
from nvdla_quant.report.frames import CASE, records, where
from nvdla_quant.report.recommendation.fidelity import recommend_by_outputs
from nvdla_quant.report.recommendation.labels import recommend_by_labels
from nvdla_quant.report.recommendation.record import KEPT, Recommendation
from nvdla_quant.report.tables import Sheet, sheet
from nvdla_quant.report.words import EXTRAPOLATED, bounds, milliseconds, number, of_command


def recommend(evidence: Evidence, keep: float = KEPT) -> list[Recommendation]:
    """Return the answers, targets with the same one together; `keep` is in percent of what fp32 is worth."""
    asked = [(case, evidence.groups, recommend_by_labels) for case in evidence.cases]
    asked += [(case, evidence.fidelity_groups, recommend_by_outputs) for case in evidence.measured]
    found: list[Recommendation] = []
    for case, groups, answer in asked:
        targets = where(groups, CASE, case)["target"].unique()
        for one in (answer(evidence, case, target, keep) for target in targets):
            if found and (found[-1].case, found[-1].headline, found[-1].reasons) == (case, one.headline, one.reasons):
                last = found[-1]
                together = {name: getattr(last, name) + getattr(one, name) for name in ("targets", "choices", "times")}
                found[-1] = replace(last, **together)
            else:
                found.append(one)
    return found


def glances(answers: Sequence[Recommendation]) -> list[Sheet]:
    """Return the answers in a line each: of classifiers, then of what is measured without labels."""
    labelled = [one for one in answers if one.by_labels]
    others = [one for one in answers if not one.by_labels]
    return [*([glance(labelled)] if labelled else []), *([_glance_outputs(others)] if others else [])]


def _glance_outputs(answers: Sequence[Recommendation]) -> Sheet:
    """Return a line for each answer of what is measured without labels; targets with the same one share it."""
    lines: dict[tuple[str, ...], list[str]] = {}
    for one in answers:
        for target, choice in zip_longest(one.targets, one.choices):
            cells: tuple[str, ...] = ("none", *("",) * 8)
            if choice is not None:
                said = (choice["number"], choice["number_fp32"])
                cells = (
                    choice["group"],
                    str(choice["n"]),
                    number(choice["sqnr"]),
                    bounds(choice["sqnr_low"], choice["sqnr_high"]),
                    number(choice["psnr"]),
                    *map(of_command, said),
                    milliseconds(choice),
                    choice["bound"] or "",
                )
            lines.setdefault((" on ".join(one.case), *cells), []).append(target)
    head = (
        *("model and data set", "targets", "use", "n", "SQNR dB", "95 %", "PSNR dB", "command's", "fp32's"),
        *("ms", "bound"),
    )
    found = [(key[0], ", ".join(targets), *key[1:]) for key, targets in lines.items()]
    # What no case has is no column.
    empty = {place for place in (6, 7, 8) if not any(line[place] for line in found)}
    kept = [place for place in range(len(head)) if place not in empty]
    cut = ([line[place] for place in kept] for line in found)
    notes = ("SQNR, PSNR: of all outputs, beside fp32 on the same images.", *_over_all(answers))
    return sheet("At a glance: outputs beside fp32", [head[place] for place in kept], 3, cut, notes)


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
