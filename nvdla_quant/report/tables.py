"""What is printed: tables for people, made from the data frames; `writers` gives them as LaTeX, Markdown and HTML.

Every sheet says under it what its numbers are, how many images they rest on and which backends made them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from nvdla_quant.report.costs import setting
from nvdla_quant.report.evidence import Evidence
from nvdla_quant.report.frames import RUN, TIME, Row, records, where
from nvdla_quant.report.words import (
    EXTRAPOLATED,
    backends,
    bounds,
    milliseconds,
    number,
    p_value,
    remarks,
    significant,
    starred,
)

Case = tuple[str, str]

INTERVALS = "Intervals are 95 %: Wilson's for shares, Agresti and Min's for paired differences."
FLIPS = (
    "Won and lost: images that only the variant, and only the baseline, has right. p: McNemar's exact test of won "
    "against lost."
)
TIES = "A label that ties with other classes counts with its expected value under random tie breaking."


@dataclass(frozen=True, eq=False)
class Sheet:
    """A table for people.

    Attributes
    ----------
    title : str
        What it shows.
    cells : DataFrame
        Texts as they are printed, under the names of the columns, which may be the same.
    names : int
        How many columns on the left hold names; the others hold numbers.
    notes : tuple[str, ...]
        What the numbers mean and where they come from.
    """

    title: str
    cells: pd.DataFrame
    names: int
    notes: tuple[str, ...] = ()


def sheet(
    title: str, head: Sequence[str], names: int, lines: Iterable[Sequence[str]], notes: tuple[str, ...] = ()
) -> Sheet:
    """Return a table of `lines` under `head`; see `Sheet`."""
    return Sheet(title, pd.DataFrame(list(lines), columns=list(head), dtype="string"), names, notes)


def printed(*columns: tuple[str, Iterable[str]]) -> pd.DataFrame:
    """Return columns side by side under their headings."""
    lines = list(zip(*(cells for _, cells in columns), strict=True))
    frame = pd.DataFrame(lines, columns=range(len(columns)), dtype="string")
    return frame.set_axis([heading for heading, _ in columns], axis="columns")


def column(frame: pd.DataFrame, name: str, *, sign: bool = False) -> list[str]:
    """Return the numbers of a column as they are printed."""
    return [number(cell, sign=sign) for cell in frame[name]]


def bounds_of(
    frame: pd.DataFrame, name: str, parts: Sequence[str] = ("low", "high"), *, sign: bool = False
) -> list[str]:
    """Return the intervals of a figure as they are printed."""
    low, high = (frame[f"{name}_{part}"] for part in parts)
    return [bounds(*ends, sign=sign) for ends in zip(low, high, strict=True)]


def flips(frame: pd.DataFrame) -> list[str]:
    """Return how many images each pair has won and lost."""
    return ["" if pd.isna(won) else f"{won} / {lost}" for won, lost in zip(frame["won"], frame["lost"], strict=True)]


def lettered(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return letters for texts that are too long for a column, and what they stand for: a to z, then aa, ab, ..."""
    numbers, kinds = pd.factorize(pd.Series(texts, dtype=object))
    letters = [_letter(i) for i in range(len(kinds))]
    return [letters[i] for i in numbers], [f"{letter}: {text}." for letter, text in zip(letters, kinds, strict=True)]


def _letter(i: int) -> str:
    return ("" if i < 26 else chr(ord("a") + i // 26 - 1)) + chr(ord("a") + i % 26)


def summary_sheet(evidence: Evidence, case: Case) -> Sheet:
    """Return a line for fp32 and for each variant of a case."""
    here = evidence.of(case)
    pairs = where(here.comparisons, ["kind"], ["fp32"]).dropna(subset=["score_step"])
    columns = [*RUN, "won", "lost", "mean_score_difference", "worst_score_difference"]
    rows = here.accuracies.merge(pairs[columns], how="left", on=list(RUN))
    letters, legend = lettered([f"{backends(row)}{remarks(row)}" for row in records(rows)])
    cells = printed(
        ("target", rows["target"].fillna("-")),
        ("variant", rows["variant"]),
        ("n", rows["n"].astype("string")),
        ("top-1 %", pd.Series(column(rows, "top1")).mask(rows["error"].notna(), "error")),
        ("95 %", bounds_of(rows, "top1")),
        ("vs fp32", column(rows, "delta", sign=True)),
        ("95 %", bounds_of(rows, "delta", sign=True)),
        ("won / lost", flips(rows)),
        ("p", map(p_value, rows["mcnemar_p"])),
        ("agrees %", column(rows, "agreement")),
        ("ties %", column(rows, "ties")),
        ("top-5 %", column(rows, "top5")),
        ("95 %", bounds_of(rows, "top5")),
        ("logits top-1 %", column(rows, "logits_top1")),
        ("mean score diff.", map(significant, rows["mean_score_difference"])),
        ("worst", map(significant, rows["worst_score_difference"])),
        ("verdict", rows["verdict"].fillna("")),
        ("made by", letters),
    )
    notes = (
        f"n: test images. {INTERVALS} vs fp32: points, on the same images. {FLIPS} {TIES}",
        "agrees: same top class as fp32. logits: from the tensor before Softmax. Score differences: to fp32, in real "
        "units.",
        *legend,
    )
    return Sheet(f"{case[0]} on {case[1]}: accuracy", cells, 2, notes)


def time_sheet(evidence: Evidence, case: Case) -> Sheet:
    """Return how long each variant of a case takes on each target, beside its accuracy."""
    here = evidence.of(case)
    rows = here.accuracies[["target", "variant", "top1", "delta", *TIME]].dropna(subset=["cycles"])
    found = records(rows)
    cells = printed(
        ("target", rows["target"]),
        ("variant", rows["variant"]),
        ("top-1 %", column(rows, "top1")),
        ("vs fp32", column(rows, "delta", sign=True)),
        *timed(found),
    )
    return Sheet(f"{case[0]} on {case[1]}: time on the hardware", cells, 2, tuple(estimated(here)))


def timed(rows: Sequence[Row]) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the columns that say how long an image takes."""
    yield "cycles", [starred(row, f"{row['cycles']:,}") for row in rows]
    yield "ms", [milliseconds(row) for row in rows]
    yield "images/s", [starred(row, f"{1e3 / row['ms']:,.0f}") for row in rows]
    yield "DRAM bytes", [f"{row['dram_bytes']:,}" for row in rows]
    yield "bound", [str(row["bound"]) for row in rows]


def estimated(here: Evidence) -> Iterator[str]:
    """Say what the times of a case are: of which memory and clock, and which are extrapolated."""
    settings: dict[str, list[str]] = {}
    for cost in records(here.costs.dropna(subset=["cycles"]).drop_duplicates("target")):
        settings.setdefault(", ".join(setting(cost)), []).append(cost["target"])
    said = "; ".join(f"{', '.join(targets)}: {words}" for words, targets in settings.items())
    yield f"Of an image, estimated from the loadable ({said}). bound: what most of the cycles are spent on."
    if here.costs["extrapolated"].any():
        yield EXTRAPOLATED


KINDS = {
    "mode": "per-filter beside per-kernel",
    "method": "methods beside the same variant without them",
    "best": "every variant beside the most accurate one",
}
"""Comparisons within a case, and what their tables are called."""


def pairs_sheet(evidence: Evidence, case: Case, kind: str) -> Sheet:
    """Return a line for each comparison of one of the `KINDS` within a case."""
    here = evidence.of(case)
    pairs = where(here.comparisons, ["kind"], [kind])
    made = ["checked", "deviation", "logits_deviation"]
    makers = pd.concat([here.accuracies, here.groups.assign(variant=here.groups["group"])])
    makers = makers.drop_duplicates(list(RUN))[[*RUN, *made]]
    pairs = pairs.merge(makers, how="left", on=list(RUN))
    letters, legend = lettered([backends(row) for row in records(pairs)])
    cells = printed(
        ("target", pairs["target"]),
        ("variant", pairs["variant"]),
        ("baseline", pairs["baseline"]),
        ("n", pairs["n"].astype("string")),
        ("seeds", pairs["seeds"].astype("string")),
        ("top-1 %", column(pairs, "top1")),
        ("baseline's", column(pairs, "baseline_top1")),
        ("difference", column(pairs, "delta", sign=True)),
        ("95 %", bounds_of(pairs, "delta", sign=True)),
        ("won / lost", flips(pairs)),
        ("p", map(p_value, pairs["p"])),
        ("p, Holm", map(p_value, pairs["p_holm"])),
        ("agree %", column(pairs, "agreement")),
        ("made by", letters),
    )
    notes = (
        f"n: test images, the same for both. {INTERVALS} {FLIPS} Holm: corrected for the number of comparisons on the "
        "target. Hits of several seeds are averaged image by image.",
        *legend,
    )
    return Sheet(f"{case[0]} on {case[1]}: {KINDS[kind]}", cells, 3, notes)


def seeds_sheet(evidence: Evidence, case: Case) -> Sheet:
    """Return a line for each variant of a case whose calibrator has several seeds."""
    groups = evidence.of(case).groups
    groups = groups[groups["seeds"] > 1]
    letters, legend = lettered([backends(row) for row in records(groups)])
    ends = ("min", "max")
    cells = printed(
        ("target", groups["target"]),
        ("variant", groups["group"]),
        ("n", groups["n"].astype("string")),
        ("seeds", groups["seeds"].astype("string")),
        ("top-1 %", _means(groups, "top1")),
        ("sd", column(groups, "top1_sd")),
        ("least to most", bounds_of(groups, "top1", ends)),
        ("vs fp32", _means(groups, "delta", sign=True)),
        ("sd", column(groups, "delta_sd")),
        ("least to most", bounds_of(groups, "delta", ends, sign=True)),
        ("agrees %", _means(groups, "agreement")),
        ("sd", column(groups, "agreement_sd")),
        ("made by", letters),
    )
    notes = (
        "n: test images of each seed. Means over the seeds of the calibrator, which draw other calibration images; sd: "
        "sample standard deviation over the seeds, in points. It says what the choice of calibration images does, and "
        "not what other test images would do: that is the interval's part.",
        *legend,
    )
    return Sheet(f"{case[0]} on {case[1]}: repeated seeds", cells, 2, notes)


def _means(groups: pd.DataFrame, name: str, *, sign: bool = False) -> list[str]:
    """Return the means over seeds; there is none where an output means nothing."""
    return [text or "error" for text in column(groups, f"{name}_mean", sign=sign)]


def sheets_of(evidence: Evidence) -> list[Sheet]:
    """Return the sheets of all cases; those without a line are left out."""
    found = []
    for case in evidence.cases:
        found += [summary_sheet(evidence, case), time_sheet(evidence, case)]
        found += [pairs_sheet(evidence, case, kind) for kind in KINDS]
        found.append(seeds_sheet(evidence, case))
    return [one for one in found if len(one.cells)]
