"""How long loadables take on the hardware: ``cost.json`` files as data frames, and what a layer takes of it."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nvdla_quant.errors import ReportError
from nvdla_quant.report.frames import COSTS, OPERATIONS, PLACE, RUN, Row, records, typed

PROCESSOR = "CPU"
"""Unit of the operations that the processor computes."""


def read_costs(paths: Iterable[Path | str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what ``cost.json`` files say of loadables and of their operations, by `COSTS` and `OPERATIONS`.

    Raises
    ------
    ReportError
        A file is missing, not JSON, or lacks a key.
    """
    costs: list[Row] = []
    operations: list[Row] = []
    for path in paths:
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            run = {name: content["subject"][name] for name in RUN}
            costs.append({**run, **_cost(content)})
            operations += [{**run, **_operation(one)} for one in content.get("operations", ())]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ReportError(f"{path}: not an estimate: {type(error).__name__} {error}") from error
    return typed(costs, COSTS), typed(operations, OPERATIONS)


def _cost(content: Row) -> Row:
    """Return the cells of a loadable; there are none but the reason where it could not be estimated."""
    if "error" in content:
        return {"error": content["error"]}
    figures = ("cycles", "ms", "dram_bytes", "bound", "macs", "bytes_read", "bytes_written", "clock")
    peaks = {f"peak_{name}": content["peak_macs_per_cycle"].get(name) for name in ("int8", "fp16")}
    return {
        **{name: content[name] for name in figures},
        **content["memory"],
        **peaks,
        "extrapolated": bool(content["extrapolated"]),
        "reasons": "; ".join(content["extrapolated"]) or None,
    }


def _operation(one: Row) -> Row:
    """Return the cells of an operation."""
    names = ("op", "unit", "start", "cycles", "bound", "macs", "bytes_read", "bytes_written", "extrapolated")
    return {
        **{name: one[name] for name in names},
        "others": ",".join(map(str, one["with"])) or None,
        "layers": ", ".join(one.get("layers", ())) or None,
    }


def layer_times(operations: pd.DataFrame, layers: pd.DataFrame) -> pd.DataFrame:
    """Return what each layer of a run takes and, beside it, how far it is off fp32.

    Operations belong to the tensor that they make, as ``layers.tsv`` has it. What makes none that was compared is a
    line by the names of its layers, without an error.

    Parameters
    ----------
    operations, layers : DataFrame
        By `OPERATIONS` and `LAYERS`, of one run.

    Returns
    -------
    DataFrame
        ``layer``, ``cycles``, ``share`` (of all operations, in percent), ``bound``, ``bytes``, ``sqnr`` (None where
        nothing was compared), ``units``; in the order in which they start.
    """
    tensors = {number: row for row in records(layers) for number in numbers(row["operations"])}
    found: dict[str, dict[str, Any]] = {}
    total = max(1, int(operations["cycles"].sum()))
    for row in records(operations.sort_values("start", kind="stable")):
        members = [row["op"], *numbers(row["others"])]
        tensor = next((tensors[number] for number in members if number in tensors), None)
        name = str(tensor["layer"] if tensor else row["layers"] or f"operation {row['op']}")
        empty = {"layer": name, "cycles": 0, "share": 0.0, "bytes": 0, "most": -1, "units": []}
        one = found.setdefault(name, {**empty, "sqnr": tensor and tensor["sqnr_fp32"]})
        one["cycles"] += row["cycles"]
        one["share"] += 100 * row["cycles"] / total
        one["bytes"] += row["bytes_read"] + row["bytes_written"]
        one["units"].append(row["unit"])
        if row["cycles"] > one["most"]:
            one |= {"most": row["cycles"], "bound": row["bound"]}
    lines = [{**one, "units": ", ".join(dict.fromkeys(one["units"]))} for one in found.values()]
    return pd.DataFrame(lines, columns=["layer", "cycles", "share", "bound", "bytes", "sqnr", "units"])


def representatives(runs: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Return the fastest loadable of each precision on each target, of those whose output is not wrong.

    Parameters
    ----------
    runs : DataFrame
        With the columns ``error``, ``verdict`` and ``precision``.
    costs : DataFrame
        By `COSTS`.

    Returns
    -------
    DataFrame
        Lines of `costs` with their ``precision``, in its order.
    """
    sound = runs[runs["error"].isna() & runs["verdict"].ne("miscompiled").fillna(True)]
    timed = costs.dropna(subset=["cycles"]).merge(sound[[*RUN, "precision"]], on=list(RUN))
    first = timed.groupby([*PLACE, "precision"], sort=False)["cycles"].idxmin()
    return timed.loc[sorted(first)]


def numbers(text: str | None) -> Sequence[int]:
    """Return the numbers of a cell that lists some."""
    return [] if text is None else [int(part) for part in text.replace(",", " ").split()]


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return which of ``(cost, gain)`` no other beats: none costs as little and gains more, or less for as much."""
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    best, kept = float("-inf"), []
    for i in order:
        if points[i][1] > best:
            best = points[i][1]
            kept.append(i)
    return kept


def setting(cost: Row) -> tuple[str, ...]:
    """Return the memory and the clock of an estimate in words: clock and latency, rates, what else there is."""
    ways = "shared by both ways" if cost["shared"] else "each way"
    rate = f"{cost['read_bytes']:g} bytes a cycle {ways}"
    limits = [] if cost["outstanding"] is None else [f"at most {cost['outstanding']} reads under way"]
    limits += [f"{cost['host_gap']} cycles between accesses to registers"] if cost["host_gap"] else []
    return (f"{cost['clock'] / 1e6:g} MHz, latency {cost['read_latency']} cycles", rate, *limits)
