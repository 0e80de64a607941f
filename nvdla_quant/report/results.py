"""A results folder as data frames, for notebooks and scripts of one's own."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from nvdla_quant.configuration.sweep import EQUALIZED, calibration_folder, calibration_name
from nvdla_quant.errors import ReportError
from nvdla_quant.evaluation.comparison import read_comparisons
from nvdla_quant.report.costs import read_costs
from nvdla_quant.report.evidence import changes, read_layers, read_scales, read_verdicts, together
from nvdla_quant.report.fidelity.frames import ADDED, BY_LABELS, MEASURED, OUTPUTS
from nvdla_quant.report.frames import CASE, LAYERS, PAIRS, RUN, SCALES, SEEDS, SUMMARY, Row, read_tsv, records, typed


@dataclass(frozen=True, eq=False)
class Results:
    """What a finished sweep left in its results folder; `frames` documents each column.

    Attributes
    ----------
    summary : DataFrame
        By `SUMMARY`: fp32 and each variant on each target.
    pairs, seeds : DataFrame
        By `PAIRS` and `SEEDS`: paired comparisons; variants whose calibrator has several seeds.
    layers, verdicts : DataFrame
        By `LAYERS` and `VERDICTS`: every tensor of every loadable; empty where ``verify.images`` was 0.
    scales : DataFrame
        By `SCALES`: what each calibrator found, in the raw tables.
    classes, confusions : DataFrame
        By `CLASSES` and `CONFUSIONS`: what changed in each comparison.
    costs, operations : DataFrame
        By `COSTS` and `OPERATIONS`: how long every loadable takes on the hardware, and each of its operations.
    outputs : DataFrame
        By `OUTPUTS`: every output of every run that is measured without labels. Where there is one, `summary` and
        `pairs` also have the columns of `MEASURED` and `ADDED`, as `fidelity.frames` has them.
    """

    summary: pd.DataFrame
    pairs: pd.DataFrame
    seeds: pd.DataFrame
    layers: pd.DataFrame
    verdicts: pd.DataFrame
    scales: pd.DataFrame
    classes: pd.DataFrame
    confusions: pd.DataFrame
    costs: pd.DataFrame
    operations: pd.DataFrame
    outputs: pd.DataFrame


def read_results(folder: Path | str) -> Results:
    """Read a results folder.

    Parameters
    ----------
    folder : Path or str
        Where a sweep ended: ``results`` by default.

    Raises
    ------
    ReportError
        A file is missing or damaged; the sweep did not end, or was another version's.

    Examples
    --------
    >>> found = read_results("results")
    >>> found.summary.pivot(index=["model", "variant"], columns="target", values="top1")
    >>> found.layers.groupby("layer")["sqnr_fp32"].min().nsmallest(5)
    """
    folder = Path(folder)
    if not (folder / "summary.tsv").is_file():
        raise ReportError(f"{folder}: no folder of results, it has no summary.tsv; did the sweep end?")
    # A sweep that measures no case without labels has no table of outputs, and its tables no columns for them.
    measures = (folder / "fidelity.tsv").is_file()
    summary = read_tsv(folder / "summary.tsv", {**SUMMARY, **(MEASURED if measures else {})}, "accuracies")
    runs = summary.dropna(subset=["target"])
    judged = records(runs.dropna(subset=["verdict"]))
    calibrated = runs.dropna(subset=["calibrator"])
    calibrated = calibrated.assign(equalized=calibrated["preparation"] == EQUALIZED)
    calibrated = calibrated.drop_duplicates([*CASE, "calibrator", "equalized"])
    labelled = runs[runs["metric"] == BY_LABELS] if measures else runs
    cases = records(labelled.drop_duplicates(list(CASE)))
    comparisons = [_of(folder, run, RUN) / "comparison.json" for run in records(labelled)]
    comparisons += [_of(folder, case, CASE) / "comparisons.json" for case in cases]
    found = [pair for path in comparisons for pair in read_comparisons(path)]
    return Results(
        summary,
        read_tsv(folder / "pairs.tsv", {**PAIRS, **(ADDED if measures else {})}, "comparisons"),
        read_tsv(folder / "seeds.tsv", SEEDS, "seeds"),
        together([read_layers(_of(folder, run, RUN) / "layers.tsv", run) for run in judged], LAYERS),
        read_verdicts(_of(folder, run, RUN) / "verdict.json" for run in judged),
        together([_scales(folder, run) for run in records(calibrated)], SCALES),
        *changes(found),
        *read_costs(_of(folder, run, RUN) / "cost.json" for run in records(runs)),
        read_tsv(folder / "fidelity.tsv", OUTPUTS, "outputs") if measures else typed([], OUTPUTS),
    )


def _of(folder: Path, row: Row, keys: Iterable[str]) -> Path:
    """Return where the files of a case or a run lie."""
    return folder.joinpath(*(row[key] for key in keys))


def _scales(folder: Path, run: Row) -> pd.DataFrame:
    which = run["calibrator"], run["preparation"]
    path = _of(folder, run, CASE) / calibration_folder(*which) / "table.raw.json"
    return read_scales(path, {**run, "name": calibration_name(*which)})
