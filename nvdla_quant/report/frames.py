"""Data frames with a schema: what each column of the results means, what type it has, and the TSV files that hold it.

Shares are in percent, differences in percentage points, intervals are 95 %, scores are in real units. A cell without a
value is "not applicable" or, beside an entry under ``error``, "no number because the output means nothing".
"""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from nvdla_quant.errors import ReportError
from nvdla_quant.jobs.files import write_text

Row = Mapping[str, Any]
"""One line of a data frame as Python has it; None where a cell has no value."""


@dataclass(frozen=True)
class Column:
    """A column of a data frame.

    Attributes
    ----------
    dtype : str
        Type as pandas names it: ``string``, ``Int64``, ``float64`` or ``boolean``; each has cells without a value.
    meaning : str
        What it holds.
    """

    dtype: str
    meaning: str


Schema = Mapping[str, Column]
"""Columns of a data frame by name, in their order."""


def texts(**meanings: str) -> dict[str, Column]:
    """Return columns of text with what they hold."""
    return {name: Column("string", meaning) for name, meaning in meanings.items()}


def counts(**meanings: str) -> dict[str, Column]:
    """Return columns of whole numbers with what they hold."""
    return {name: Column("Int64", meaning) for name, meaning in meanings.items()}


def numbers(**meanings: str) -> dict[str, Column]:
    """Return columns of numbers with what they hold."""
    return {name: Column("float64", meaning) for name, meaning in meanings.items()}


def share(name: str, meaning: str) -> dict[str, Column]:
    """Return a figure with its interval."""
    bounds = numbers(**{f"{name}_low": f"lower end of {name}'s interval", f"{name}_high": "upper end"})
    return numbers(**{name: meaning}) | bounds


CASE = ("model", "dataset")
PLACE = (*CASE, "target")
RUN = (*PLACE, "variant")
"""What names a run."""
GROUP = (*PLACE, "group")
"""What names the runs that differ in the calibrator's seed alone."""

_RUN = texts(
    model="model, by its name in the configuration",
    dataset="data set, by its name",
    target="hardware; none for fp32, TensorRT and onnxruntime",
    variant="variant, by its name",
)
_MADE_BY = texts(
    calibrate_backend="what found the scales",
    compile_backend="what compiled",
    run_backend="what ran",
    exactness="what the numbers are to the hardware's",
)
_FIGURES: Schema = {
    **share("top1", "images whose label has the highest score; ties by expectation"),
    **share("delta", "top1 minus fp32's on the same images"),
    **numbers(mcnemar_p="exact two-sided test of delta"),
    **share("top5", "images whose label is among the five highest scores"),
    **numbers(
        ties="images whose highest score is tied",
        ties5="images whose fifth highest score is tied",
        agreement="images with the same top class as fp32",
    ),
    **counts(distinct_outputs="different score vectors"),
    **texts(error="why the output means nothing; then there is no figure"),
}
TIME: Schema = {
    **counts(cycles="estimated clock cycles of an image on the hardware; none where it could not be estimated"),
    **numbers(ms="the same in milliseconds, at the configured clock"),
    **counts(dram_bytes="bytes that an image reads from memory and writes to it"),
    **texts(bound="what most of the cycles are spent on: MACs, weights, data, output, latency or CPU"),
    "extrapolated": Column("boolean", "whether no measurement stands behind a part of the estimate"),
}
"""What an estimate says in short."""
DESCRIBED: Schema = {
    **_RUN,
    **texts(
        precision="fp32, fp16 or int8",
        mode="how weights share scales: per-kernel or per-filter",
        calibrator="calibrator, by its name",
        preparation="fold, fold-equalize or as-is",
        feeding="how the input is fed: quantized or stock-runtime",
    ),
    "unified_scales": Column("boolean", "whether scales that the hardware cannot change were made to agree"),
    **texts(
        correction="whether errors of the mean are taken out of biases: none or bias",
        rounding="how weights are rounded: nearest or adaround",
        search="what scales are searched for: none, or output for the best output of the loadable",
    ),
    **_MADE_BY,
    **counts(checked="images that were also run bit for bit"),
    **numbers(
        deviation="largest absolute difference to those in any output, in the device's domain",
        logits_deviation="the same before the final Softmax",
    ),
    **texts(
        verdict="ok, table, precision, miscompiled, or unknown where nobody could verify it; none for fp32",
        cause="the first thing that the verdict rests on",
    ),
    **TIME,
    **counts(n="test images"),
}
"""Columns that say what a run is, whatever was measured."""
SUMMARY: Schema = {
    **DESCRIBED,
    **counts(classes="classes"),
    **_FIGURES,
    **{f"logits_{name}": Column(c.dtype, f"{c.meaning}; before the final Softmax") for name, c in _FIGURES.items()},
}
"""Columns of ``summary.tsv``: a row for fp32 and for each variant on each target."""
PAIRS: Schema = {
    **texts(
        model=_RUN["model"].meaning,
        dataset=_RUN["dataset"].meaning,
        target="hardware",
        kind="why these two: fp32, mode (per-filter beside per-kernel), method (beside none), best (beside the best)",
        variant="variant; without the seed where seeds are averaged",
        baseline="what it is compared with",
    ),
    **counts(seeds="runs with other seeds whose hits are averaged", n="images that both classified"),
    **numbers(top1="top-1 of the variant", baseline_top1="top-1 of the baseline"),
    **share("delta", "their difference on the same images"),
    **counts(won="images that the variant alone has right", lost="images that the baseline alone has right"),
    **numbers(
        p="McNemar's exact test of won against lost",
        p_holm="the same, corrected for the pairs of a kind on the target",
        agreement="images with the same top class; this and what follows is of single runs",
        score_step="real value of one step of the variant's scores",
        mean_score_difference="mean absolute difference of scores",
        worst_score_difference="largest absolute difference of scores",
    ),
    **counts(
        worst_image="test image where that is",
        worst_class="class where that is",
        changed_classes="classes whose hits changed",
        changed_confusions="cells of the confusion matrix that changed",
    ),
    **_MADE_BY,
}
"""Columns of ``pairs.tsv``: a row for each paired comparison."""


def spreads(*names: str) -> dict[str, Column]:
    """Return the columns that tell the spread of figures over seeds."""
    parts = {
        "mean": "mean of {} over the seeds",
        "sd": "sample standard deviation over the seeds",
        "min": "least",
        "max": "largest",
    }
    return numbers(**{f"{name}_{part}": meaning.format(name) for name in names for part, meaning in parts.items()})


_SPREADS = spreads("top1", "delta", "agreement")
SEEDS: Schema = {
    **_RUN,
    "variant": Column("string", "variant without its seed"),
    **counts(images="calibration images", seeds="seeds", n="test images"),
    **_SPREADS,
    **texts(error="why the output of one of them means nothing"),
    **_MADE_BY,
}
"""Columns of ``seeds.tsv``: a row for each variant whose calibrator has several seeds."""
_MEASURED = {
    f"{name}_{beside}": Column("float64", f"{meaning}, beside {words}")
    for beside, words in (("fp32", "fp32"), ("simulated", "the simulated int8 network; none in fp16"))
    for name, meaning in (
        ("sqnr", "signal over noise in dB"),
        ("cosine", "cosine of the angle"),
        ("correlation", "correlation with each channel's mean subtracted"),
    )
}
LAYER_FILE: Schema = {
    **counts(step="place in the order of execution"),
    **texts(
        layer="layer that the tensor belongs to",
        operations="numbers of the operations that make it",
        does="what they do",
        layers="layers that they compute",
        shape="channels x height x width",
    ),
    **numbers(scale="real value of one step, by the table", effective_scale="the same as it turned out"),
    **_MEASURED,
    **numbers(
        local_error="largest error beside what its inputs should give, in steps",
        local_tolerance="error that roundings explain",
        local_share="share of the values beyond, 0 to 1",
    ),
    **counts(
        saturated="values at an end of the range",
        zeros="values that are 0",
        values="values",
        constant_channels="channels that are constant",
        wrong_weights="weights that are not the network's",
    ),
    **texts(causes="what is wrong here"),
}
"""Columns of ``layers.tsv``: a row for each tensor of the network that a loadable holds."""
LAYERS: Schema = {**_RUN, **LAYER_FILE}
VERDICTS: Schema = {
    **_RUN,
    **texts(
        verdict="ok, table, precision, miscompiled or unknown",
        cause="the first thing that it rests on",
        layer="where that shows",
        evidence="how it shows",
    ),
    **counts(images="images that were run"),
}
"""A row for each loadable: what its ``verdict.json`` says."""
COSTS: Schema = {
    **_RUN,
    **TIME,
    **counts(
        macs="multiplications",
        bytes_read="bytes read from memory",
        bytes_written="bytes written to it",
        read_latency="cycles from an address to its data",
        write_latency="cycles from the last data to the answer",
        outstanding="most reads under way; none: as many as the core asks for",
        host_gap="idle cycles of the processor behind each access to a register",
        peak_int8="most multiplications of a cycle in int8",
        peak_fp16="the same in fp16",
    ),
    **numbers(
        clock="hertz", read_bytes="bytes a cycle that memory gives", write_bytes="bytes a cycle that memory takes"
    ),
    "shared": Column("boolean", "whether reads and writes share read_bytes"),
    **texts(reasons="why no measurement stands behind it", error="why there is no estimate"),
}
"""A row for each loadable: what its ``cost.json`` says of the whole."""
OPERATIONS: Schema = {
    **_RUN,
    **counts(op="number of the operation in the loadable; of several that run together that of the first"),
    **texts(
        others="numbers of those that run with it",
        unit="unit, or units",
        layers="layers that it computes; none where the compiler does not say",
    ),
    **counts(start="cycles from the beginning", cycles="cycles from its start, alone"),
    **texts(bound="what most of them are spent on"),
    **counts(macs="multiplications", bytes_read="bytes read", bytes_written="bytes written"),
    "extrapolated": Column("boolean", "whether no measurement stands behind it"),
}
"""A row for each operation of each loadable: what its ``cost.json`` says of it."""
_CHANGE = numbers(before="the baseline's", after="the variant's")
_PAIR = {name: PAIRS[name] for name in (*PLACE, "kind", "variant", "baseline")}
CLASSES: Schema = {**_PAIR, **counts(label="class", n="its images"), **_CHANGE}
"""A row for each class whose hits changed in a comparison: expected numbers of images that are right."""
CONFUSIONS: Schema = {**_PAIR, **counts(label="class", predicted="what it was classified as"), **_CHANGE}
"""A row for each cell of the confusion matrix that changed most in a comparison: expected numbers of images."""
SCALES: Schema = {
    **{name: _RUN[name] for name in CASE},
    **texts(
        calibrator="calibrator, without the seed where seeds are put together; and the network, where it was equalized",
        tensor="as the cache names it",
    ),
    **numbers(scale="real value of one int8 step, in the raw table"),
}
"""A row for each tensor that a calibrator found a scale of."""
RATIOS: Schema = {
    **{name: SCALES[name] for name in (*CASE, "calibrator")},
    **texts(baseline="the first calibrator of the case", tensor=SCALES["tensor"].meaning),
    **numbers(
        ratio="scale over the baseline's; geometric means over the seeds",
        low="least over the seeds",
        high="largest over the seeds",
    ),
}
"""A row for each tensor of each calibrator but the first of its case."""
NOTED: Schema = texts(why="cause and evidence of the verdict", group="the variant without its seed; none for fp32")
"""What a report needs beside a summary."""
GROUPED: Schema = {
    **texts(series="group without the number of calibration images", unverified="why some could not be verified"),
    **counts(images="calibration images; none in fp16", seeds="runs"),
    "miscompiled": Column("boolean", "whether a loadable is"),
}
"""What it needs of runs over the seeds of their calibrator."""
ACCURACIES: Schema = {**SUMMARY, **NOTED}
"""The summary, and what a report needs beside it."""
GROUPS: Schema = {**ACCURACIES, **GROUPED, **_SPREADS}
"""A row for each variant over the seeds of its calibrator: the first seed's row, and the spread of figures."""


def typed(rows: Iterable[Row], schema: Schema) -> pd.DataFrame:
    """Return rows as a data frame with the columns of a schema, and no others.

    Raises
    ------
    ReportError
        A cell is of another type.
    """
    return cast(pd.DataFrame(list(rows), columns=list(schema), dtype=object), schema)


def cast(frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """Return the columns of a schema of `frame`, with its types; see `typed`."""
    try:
        return frame[list(schema)].astype({name: column.dtype for name, column in schema.items()})
    except (TypeError, ValueError) as error:
        raise ReportError(f"data frame: not of its schema: {error}") from error


def described(schema: Schema) -> pd.DataFrame:
    """Return what the columns of a schema hold, and their types."""
    return pd.DataFrame([(name, c.dtype, c.meaning) for name, c in schema.items()], columns=["column", "type", "what"])


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the lines of a data frame as Python has them, None where a cell has no value."""
    plain: list[dict[str, Any]] = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return plain


def where(frame: pd.DataFrame, names: Sequence[str], values: Iterable[object]) -> pd.DataFrame:
    """Return the lines of `frame` whose columns `names` hold `values`."""
    for name, value in zip(names, values, strict=True):
        frame = frame[frame[name] == value]
    return frame


def alike(frame: pd.DataFrame, columns: Sequence[str]) -> Iterator[tuple[list[str], pd.DataFrame]]:
    """Yield targets together whose lines are the same in `columns`, as they compute the same, with the lines of one."""
    merged: dict[str, tuple[list[str], pd.DataFrame]] = {}
    for target, lines in frame.groupby("target", sort=False):
        same = repr(lines[list(columns)].to_numpy(object).tolist())
        merged.setdefault(same, ([], lines))[0].append(str(target))
    yield from merged.values()


# ---- files


def write_tsv(path: Path | str, frame: pd.DataFrame, schema: Schema) -> None:
    """Write the columns of a schema: a header, then a line for each row, without a character that would break one."""
    write_text(path, to_tsv(cast(frame, schema)))


def to_tsv(frame: pd.DataFrame) -> str:
    """Return a data frame as TSV: numbers so that they are read back exactly, truth as true and false."""
    texts = {
        name: frame[name].map({True: "true", False: "false"})
        if dtype == "boolean"
        else frame[name].str.split().str.join(" ")
        for name, dtype in frame.dtypes.items()
        if dtype in ("boolean", "string")
    }
    text: str = frame.assign(**texts).to_csv(
        sep="\t", index=False, lineterminator="\n", quoting=csv.QUOTE_NONE, float_format=_exact
    )
    return text


def _exact(number: float) -> str:
    """Return the shortest text that is read back as the same number."""
    return repr(float(number))


def read_tsv(path: Path | str, schema: Schema, what: str) -> pd.DataFrame:
    """Read a file with at least the columns of a schema; an empty cell has no value.

    Raises
    ------
    ReportError
        The file is missing, lacks a column, or a cell is of another type; `what` says in words what it should be.
    """
    try:
        # Texts are made numbers by Python, to the last bit whichever release of pandas it is.
        frame = pd.read_csv(
            path, sep="\t", dtype="string", keep_default_na=False, na_values=[""], quoting=csv.QUOTE_NONE
        )
        if missing := [name for name in schema if name not in frame]:
            raise ValueError(f"it has no column {', '.join(missing)}")
        return cast(frame.assign(**{name: _truths(frame[name]) for name in _of_type(schema, "boolean")}), schema)
    except (OSError, ValueError, ReportError) as error:
        raise ReportError(f"{path}: not a table of {what} ({error}); remove it and run again") from error


def _truths(texts: pd.Series) -> pd.Series:
    """Return the truths that texts stand for."""
    if strange := sorted(set(texts.dropna()) - {"true", "false"}):
        raise ValueError(f"{strange[0]!r} in column {texts.name} is neither true nor false")
    return texts.map({"true": True, "false": False})


def _of_type(schema: Schema, dtype: str) -> list[str]:
    return [name for name, column in schema.items() if column.dtype == dtype]
