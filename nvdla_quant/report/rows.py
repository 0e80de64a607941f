"""Lines of the results beside what belongs to them, whatever they measure: verdicts, times, seeds, who made them."""

from collections.abc import Iterable, Sequence

import pandas as pd

from nvdla_quant.errors import ReportError
from nvdla_quant.evaluation.accuracy import Deviation, Interval
from nvdla_quant.evaluation.comparison import holm
from nvdla_quant.report.frames import CASE, COSTS, GROUP, PLACE, RUN, TIME, VERDICTS, Row, Schema, cast, records, typed

UNKNOWN = "unknown"
"""Verdict on a loadable that could not be verified: what was measured stands, with that remark."""
MADE_BY = ("calibrate_backend", "compile_backend", "run_backend", "exactness")
"""Columns that say who made a line."""


def reasons(verdicts: pd.DataFrame) -> pd.Series:
    """Return cause and evidence of each verdict in one line, nothing where there is neither."""
    joined = verdicts["cause"].fillna("") + " " + verdicts["evidence"].fillna("")
    return joined.str.strip().replace("", pd.NA)


def summarized(
    found: Iterable[Row], schema: Schema, verdicts: pd.DataFrame | None, costs: pd.DataFrame | None, what: str
) -> pd.DataFrame:
    """Return lines beside verdicts and times: cases in the order given, within a case fp32 first, then as given.

    Parameters
    ----------
    found : iterable of Row
        Lines.
    schema : Schema
        Their columns, with those of verdicts, of times, and the ``group``, which is left open.
    verdicts, costs : DataFrame or None
        By `VERDICTS` and `COSTS`.
    what : str
        What a line is the record of, for messages.

    Raises
    ------
    ReportError
        Two lines for one model, data set, target and variant, or a verdict on none of them.
    """
    added = ("verdict", "cause", "why", "group", *TIME)
    rows = typed(found, {name: column for name, column in schema.items() if name not in added})
    keys = list(RUN)
    for twice in records(rows[rows.duplicated(keys)]):
        raise ReportError(f"summary: two {what} records for {' / '.join(twice[key] or '-' for key in keys)}")
    judged = typed([], VERDICTS) if verdicts is None else verdicts
    beside = judged.merge(rows[keys], how="left", on=keys, indicator=True)
    for stranger in records(beside[beside["_merge"] == "left_only"].sort_values(keys)):
        place = " / ".join(stranger[key] for key in keys)
        raise ReportError(f"summary: a verdict on {place}, which has no {what}")
    judged = judged.assign(why=reasons(judged))[[*keys, "verdict", "cause", "why"]]
    timed = (typed([], COSTS) if costs is None else costs)[[*keys, *TIME]]
    beside = rows.merge(judged, how="left", on=keys).merge(timed, how="left", on=keys)
    order = pd.DataFrame(
        {"case": beside.groupby(list(CASE), sort=False).ngroup(), "run": beside["target"].notna()}, index=beside.index
    ).sort_values(["case", "run"], kind="stable")
    return cast(beside.loc[order.index].reset_index(drop=True).assign(group=None), schema)


def group_seeds(
    rows: pd.DataFrame, groups: Sequence[Row], figures: Sequence[str], schemas: tuple[Schema, Schema], what: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return lines, which know their group then, and the groups with the spread of their figures.

    Parameters
    ----------
    rows : DataFrame
        From `summarized`.
    groups : sequence of Row
        ``model``, ``dataset``, ``target``, ``name``, ``series``, ``images``, ``variants``.
    figures : sequence of str
        Columns whose spread over seeds is told.
    schemas : tuple of Schema
        Of the lines, and of the groups.
    what : str
        What a line is the record of, for messages.

    Raises
    ------
    ReportError
        A variant of a group has no line.
    """
    keys, names = list(GROUP), [*PLACE, "name", "series", "images", "variants"]
    members = pd.DataFrame([{name: group[name] for name in names} for group in groups], columns=names)
    members = members.explode("variants").rename(columns={"name": "group", "variants": "variant"})
    members = members.astype(dict.fromkeys([*RUN, "group", "series"], "string") | {"images": "Int64"})
    there = members.merge(rows[list(RUN)], how="left", on=list(RUN), indicator=True)
    for lost in records(there[there["_merge"] == "left_only"]):
        raise ReportError(f"seeds: {' / '.join(lost[key] for key in RUN)} has no {what}")
    rows = rows.drop(columns="group").merge(members, how="left", on=list(RUN))
    together = rows.assign(miscompiled=rows["verdict"].eq("miscompiled").fillna(False))
    together = together.groupby(keys, sort=False)
    spreads: dict[str, pd.Series] = {}
    for name in figures:
        column = together[name]
        # A figure that one of them lacks means nothing of the others either.
        whole = column.count() == column.size()
        parts = {"mean": column.mean(), "sd": column.std(), "min": column.min(), "max": column.max()}
        spreads |= {f"{name}_{part}": values.where(whole) for part, values in parts.items()}
    doubted = rows[rows["verdict"] == UNKNOWN].drop_duplicates([*keys, "why"])
    spread = pd.DataFrame(
        {
            **spreads,
            "seeds": together.size(),
            "error": together["error"].first(),
            "miscompiled": together["miscompiled"].any(),
            "unverified": doubted.groupby(keys, sort=False)["why"].agg("; ".join),
        }
    )
    first = rows.dropna(subset=["group"]).drop_duplicates(keys).drop(columns="error")
    grouped = first.merge(spread.reset_index(), how="left", on=keys)
    return cast(rows, schemas[0]), cast(grouped, schemas[1])


def credited(
    pairs: pd.DataFrame, counted: pd.Series, rows: pd.DataFrame, groups: pd.DataFrame, schema: Schema
) -> pd.DataFrame:
    """Return comparisons with who made them, and p-values corrected for their number (see `comparison.holm`).

    Parameters
    ----------
    pairs : DataFrame
        By `schema`, but for what is added here.
    counted : Series
        Which of them count.
    rows, groups : DataFrame
        From `group_seeds`.
    schema : Schema
        Of what is returned.
    """
    made = [*RUN, *MADE_BY]
    makers = pd.concat([rows[made], groups.assign(variant=groups["group"])[made]])
    family = pairs[counted].groupby([*PLACE, "kind"], sort=False)["p"]
    pairs = pairs.assign(p_holm=family.transform(lambda p: pd.Series(holm(p.tolist()), p.index, float)))
    return cast(pairs.merge(makers.drop_duplicates(list(RUN), keep="last"), how="left", on=list(RUN)), schema)


# ---- cells


def deviation_cells(deviation: Deviation | None) -> Row:
    """Return how many images were also run bit for bit, and the largest difference."""
    if deviation is None:
        return {}
    images, output, logits = len(deviation.images), deviation.output, deviation.logits
    return {"checked": images, "deviation": output, "logits_deviation": logits}


def share_cells(name: str, interval: Interval | None) -> Row:
    """Return an interval of shares as three cells in percent."""
    if interval is None:
        return {}
    value, low, high = map(percent, (interval.value, interval.low, interval.high))
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def percent(share: float | None) -> float | None:
    """Return `share` in percent, rounded where one image of a million would show."""
    return None if share is None else round(100 * share, 4) + 0.0


def one_line(text: str | None) -> str | None:
    """Return a text in one line, so that each format can hold it."""
    return None if text is None else " ".join(text.split())


def rounded(frame: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """Return `frame` with columns in percent rounded where one image of a million would show.

    By Python, which rounds the number that is meant; numpy scales it first.
    """
    return frame.assign(
        **{name: frame[name].map(lambda cell: round(cell, 4) + 0.0, na_action="ignore") for name in columns}
    )
