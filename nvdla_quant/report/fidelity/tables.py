"""Tables of what is measured without labels: outputs beside fp32's, times, pairs, seeds."""

from collections.abc import Iterator

import pandas as pd

from nvdla_quant.report.evidence import Evidence
from nvdla_quant.report.frames import GROUP, RUN, TIME, records, where
from nvdla_quant.report.tables import (
    KINDS,
    Case,
    Sheet,
    bounds_of,
    column,
    estimated,
    flips,
    lettered,
    printed,
    timed,
)
from nvdla_quant.report.words import backends, number, of_command, p_value, remarks, significant

_MEANINGS = (
    "n: test images. Intervals are 95 %, by the bootstrap over images. SQNR: signal over noise of all images, fp32's "
    "output being the signal; 20 dB are 1 % of noise. cosine: mean over images. Errors: to fp32's values; a step is "
    "one of int8. saturated: values at an end of the range."
)
_FLIPS = (
    "Better and worse: images that the variant, and the baseline, is nearer to fp32 in, or whose number of the command "
    "is better. p: exact sign test of that."
)


def fidelity_sheets(evidence: Evidence) -> list[Sheet]:
    """Return the sheets of all cases that are measured without labels; those without a line are left out."""
    found = []
    for case in evidence.measured:
        found += [outputs_sheet(evidence, case), numbers_sheet(evidence, case), time_sheet(evidence, case)]
        found += [pairs_sheet(evidence, case, kind) for kind in ("fp32", *KINDS)]
        found.append(seeds_sheet(evidence, case))
    return [one for one in found if len(one.cells)]


def outputs_sheet(evidence: Evidence, case: Case) -> Sheet:
    """Return a line for each output of each variant of a case."""
    here = evidence.of(case)
    added = [name for name in here.fidelity.columns if name not in here.outputs.columns]
    rows = here.outputs.merge(here.fidelity[[*RUN, *added]], how="left", on=list(RUN))
    letters, legend = lettered([f"{backends(row)}{remarks(row)}" for row in records(rows)])
    columns = [
        ("target", rows["target"]),
        ("variant", rows["variant"]),
        ("output", rows["output"]),
        ("n", rows["n"].astype("string")),
        ("SQNR dB", pd.Series(column(rows, "sqnr")).mask(rows["error"].notna(), "error")),
        ("95 %", bounds_of(rows, "sqnr")),
        ("PSNR dB", column(rows, "psnr")),
        ("95 %", bounds_of(rows, "psnr")),
        ("cosine", [f"{cell:.5f}" if pd.notna(cell) else "" for cell in rows["cosine"]]),
        ("mean error", map(significant, rows["mean_error"])),
        ("in steps", map(significant, rows["mean_error_steps"])),
        ("largest", map(significant, rows["max_error"])),
        ("in steps", map(significant, rows["max_error_steps"])),
        ("saturated %", map(significant, rows["saturated"])),
        ("same channel %", column(rows, "pixel_agreement")),
        ("95 %", bounds_of(rows, "pixel_agreement")),
        ("verdict", rows["verdict"].fillna("")),
        ("made by", letters),
    ]
    absent = {"PSNR dB": "psnr", "same channel %": "pixel_agreement"}
    for name in (heading for heading, figure in absent.items() if rows[figure].isna().all()):
        place = [heading for heading, _ in columns].index(name)
        del columns[place : place + 2]
    return Sheet(f"{' on '.join(case)}: outputs beside fp32", printed(*columns), 3, (_MEANINGS, *legend))


def numbers_sheet(evidence: Evidence, case: Case) -> Sheet:
    """Return what a case's command says of each variant; without a command there is no line."""
    rows = where(evidence.fidelity, ("model", "dataset"), case).dropna(subset=["number"])
    cells = printed(
        ("target", rows["target"]),
        ("variant", rows["variant"]),
        ("number", map(of_command, rows["number"])),
        ("95 %", _ends(rows, "number")),
        ("fp32's", map(of_command, rows["number_fp32"])),
        ("difference", [of_command(cell, sign=True) for cell in rows["number_delta"]]),
        ("95 %", _ends(rows, "number_delta", sign=True)),
        ("p", map(p_value, rows["number_p"])),
    )
    better = "lower" if rows["lower_is_better"].any() else "higher"
    notes = (f"Means over images of what the case's command prints; {better} is better. p: exact sign test.",)
    return Sheet(f"{' on '.join(case)}: by the command", cells, 2, notes)


def _ends(rows: pd.DataFrame, name: str, *, sign: bool = False) -> list[str]:
    """Return the intervals of a command's numbers."""
    ends = zip(rows[f"{name}_low"], rows[f"{name}_high"], strict=True)
    return [f"{of_command(low, sign=sign)} to {of_command(high, sign=sign)}" for low, high in ends]


def time_sheet(evidence: Evidence, case: Case) -> Sheet:
    """Return how long each variant of a case takes on each target, beside its SQNR."""
    here = evidence.of(case)
    rows = here.fidelity[["target", "variant", "sqnr", "sqnr_low", "sqnr_high", *TIME]].dropna(subset=["cycles"])
    cells = printed(
        ("target", rows["target"]),
        ("variant", rows["variant"]),
        ("SQNR dB", column(rows, "sqnr")),
        ("95 %", bounds_of(rows, "sqnr")),
        *timed(records(rows)),
    )
    return Sheet(f"{' on '.join(case)}: time on the hardware", cells, 2, tuple(estimated(here)))


def pairs_sheet(evidence: Evidence, case: Case, kind: str) -> Sheet:
    """Return a line for each comparison of one kind within a case."""
    here = evidence.of(case)
    pairs = where(here.fidelity_pairs, ["kind"], [kind])
    made = ["checked", "deviation", "logits_deviation"]
    makers = pd.concat([here.fidelity, here.fidelity_groups.assign(variant=here.fidelity_groups["group"])])
    pairs = pairs.merge(makers.drop_duplicates(list(RUN))[[*RUN, *made]], how="left", on=list(RUN))
    letters, legend = lettered([backends(row) for row in records(pairs)])
    by_sqnr = (pairs["measure"] == "sqnr").all()
    said = number if by_sqnr else of_command
    cells = printed(
        ("target", pairs["target"]),
        ("variant", pairs["variant"]),
        ("baseline", pairs["baseline"]),
        ("n", pairs["n"].astype("string")),
        ("seeds", pairs["seeds"].astype("string")),
        ("SQNR dB" if by_sqnr else "number", map(said, pairs["value"])),
        ("baseline's", map(said, pairs["baseline_value"])),
        ("difference", [said(cell, sign=True) for cell in pairs["value_delta"]]),
        ("95 %", bounds_of(pairs, "value_delta", sign=True) if by_sqnr else _ends(pairs, "value_delta", sign=True)),
        ("better / worse", flips(pairs)),
        ("p", map(p_value, pairs["p"])),
        ("p, Holm", map(p_value, pairs["p_holm"])),
        ("made by", letters),
    )
    title = {"fp32": "every variant beside fp32, by the command", **KINDS, "best": "every variant beside the best one"}
    notes = (f"n: test images, the same for both. {_FLIPS} Holm: corrected for the comparisons on the target.", *legend)
    return Sheet(f"{' on '.join(case)}: {title[kind]}", cells, 3, notes)


def seeds_sheet(evidence: Evidence, case: Case) -> Sheet:
    """Return a line for each variant of a case whose calibrator has several seeds."""
    groups = evidence.of(case).fidelity_groups
    groups = groups[groups["seeds"] > 1]
    columns = list(_seed_columns(groups))
    note = "Over the seeds of the calibrator, which draw other calibration images; sd: sample standard deviation."
    return Sheet(f"{' on '.join(case)}: repeated seeds", printed(*columns), 2, (note,))


def _seed_columns(groups: pd.DataFrame) -> Iterator[tuple[str, list[str]]]:
    yield "target", groups["target"].tolist()
    yield "variant", groups[GROUP[-1]].tolist()
    yield "seeds", groups["seeds"].astype("string").tolist()
    for name, title in (("sqnr", "SQNR dB"), ("number", "number")):
        if groups[f"{name}_mean"].notna().any():
            yield title, column(groups, f"{name}_mean")
            yield "sd", column(groups, f"{name}_sd")
            yield "least to most", bounds_of(groups, name, ("min", "max"))
