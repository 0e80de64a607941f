"""A small sweep for the tests of the report: fp32, fp16, per-filter, per-kernel with two seeds, a constant output."""

from dataclasses import replace
from typing import Any

import numpy as np

from nvdla_quant.evaluation.accuracy import Subject, fp32_subject, measure
from nvdla_quant.evaluation.comparison import Scored, compare, compare_case
from nvdla_quant.report.evidence import Evidence, evidence_of
from nvdla_quant.report.frames import COSTS, LAYERS, OPERATIONS, RATIOS, RUN, VERDICTS, typed
from nvdla_quant.report.tables import Sheet

CASE = ("lenet", "mnist")
LABELS = np.arange(200) % 10
FP32 = np.eye(10, dtype=np.float32)[LABELS]
LOST = {"fp16": 0, "int8-filter": 2, "int8-kernel-seed-0": 20, "int8-kernel-seed-1": 40}
"""How many images each variant has wrong, from the first on; fp32 has all right."""


def verdict(run: tuple[str | None, ...], verdict: str, *found: str | None, images: int = 8) -> dict[str, Any]:
    """Return a line of the verdicts; `found` are cause, layer and evidence."""
    cells = dict(zip(("cause", "layer", "evidence"), found or (None,) * 3, strict=True))
    return {**dict(zip(RUN, run, strict=True)), "verdict": verdict, "images": images, **cells}


def layer(run: tuple[str | None, ...], step: int, name: str, **cells: Any) -> dict[str, Any]:
    """Return a line of the layers."""
    return {
        **dict(zip(RUN, run, strict=True)),
        **{"step": step, "layer": name, "cosine_fp32": 0.99, "saturated": 0, "zeros": 5, "values": 10, "scale": 0.01},
        **cells,
    }


def lines_of(sheet: Sheet) -> list[tuple[str, ...]]:
    """Return the lines of a sheet."""
    return list(sheet.cells.itertuples(index=False, name=None))


def _scores(variant: str, lost: dict[str, int]) -> Any:
    if variant not in lost:
        return np.full_like(FP32, 0.5) + np.eye(10, dtype=np.float32)[0]
    wrong = np.arange(200) < lost[variant]
    return np.eye(10, dtype=np.float32)[np.where(wrong, (LABELS + 1) % 10, LABELS)]


def _subject(variant: str, target: str) -> Subject:
    half = variant == "fp16"
    return replace(
        fp32_subject(*CASE),
        target=target,
        variant=variant,
        precision="fp16" if half else "int8",
        mode=None if half else "per-filter" if "filter" in variant else "per-kernel",
        calibrator=None if half else "entropy",
        compile_backend="builtin",
        run_backend="emulator",
    )


def cost(run: tuple[str | None, ...], cycles: int | None, **cells: Any) -> dict[str, Any]:
    """Return a line of the costs, at 1 MHz: a cycle is a thousandth of a ms."""
    names = dict(zip(RUN, run, strict=True))
    if cycles is None:
        return {**names, "error": "an operation that nothing is known of", **cells}
    return {
        **{**names, "cycles": cycles, "ms": cycles / 1e3, "dram_bytes": 900, "bound": "MACs", "extrapolated": False},
        **{"macs": 5000, "bytes_read": 800, "bytes_written": 100, "clock": 1e6, "peak_int8": 64, "peak_fp16": 32},
        **{"read_latency": 40, "write_latency": 40, "read_bytes": 8.0, "write_bytes": 8.0, "shared": False},
        **{"host_gap": 0, **cells},
    }


def operation(run: tuple[str | None, ...], op: int, cycles: int, **cells: Any) -> dict[str, Any]:
    """Return a line of the operations, each after the one before."""
    names = dict(zip(RUN, run, strict=True))
    figures = {"bound": "MACs", "macs": 10 * cycles, "bytes_read": 80, "bytes_written": 10, "extrapolated": False}
    return {**names, "op": op, "unit": "conv+sdp", "start": 1000 * op, "cycles": cycles, **figures, **cells}


def sweep_evidence(
    lost: dict[str, int] = LOST,
    targets: tuple[str, ...] = ("nv_full",),
    unverified: tuple[str, ...] = (),
    cycles: dict[str, int | None] | None = None,
) -> Evidence:
    """Return what a report on the sweep rests on.

    `lost` as `LOST`, `unverified` variants without any layer, `cycles` of each variant, by default none.
    """
    names = [*lost, "int8-broken"]
    seeds = [name for name in names if "-seed-" in name]
    groups = [
        {
            "model": "lenet",
            "dataset": "mnist",
            "target": target,
            "name": members[0].partition("-seed-")[0],
            "series": members[0].partition("-seed-")[0],
            "images": None if members == ["fp16"] else 8,
            "variants": members,
        }
        for target in targets
        for members in [*([name] for name in names if name not in seeds), *([seeds] if seeds else [])]
    ]
    accuracies = [measure(fp32_subject(*CASE), LABELS, FP32, exactness="fp32")]
    comparisons, verdicts, layers = [], [], []
    fp32 = Scored.of(FP32, 1.0)
    for target in targets:
        for name in names:
            scores = _scores(name, lost)
            accuracies.append(measure(_subject(name, target), LABELS, scores, exactness="bit-exact", reference=FP32))
            pair = {"model": "lenet", "dataset": "mnist", "target": target, "variant": name}
            found = compare({**pair, "baseline": "fp32", "kind": "fp32"}, LABELS, Scored.of(scores, 1.0), fp32)
            comparisons += [] if found is None else [found]
            key = (*CASE, target, name)
            wrong = name == "int8-broken"
            if name in unverified:
                verdicts.append(verdict(key, "unknown", "not-understood", None, "what is operation 3?"))
                continue
            found = ("constant-output", "conv1", "every channel is constant") if wrong else ()
            verdicts.append(verdict(key, "miscompiled" if wrong else "ok", *found))
            layers += [
                layer(key, 0, "conv1", operations="1", sqnr_fp32=40.0, sqnr_simulated=float("inf")),
                layer(key, 1, "ip1", operations="3", sqnr_fp32=20.0 if name != "fp16" else float("inf")),
            ]
    filters = {"variant": "int8-filter", "baseline": "int8-kernel-seed-0", "kind": "mode"}
    pairs = [{"target": target, **filters} for target in targets if seeds]
    better = [name for name in lost if name.startswith("int8-filter-")]
    pairs += [
        {"target": target, "variant": name, "baseline": "int8-filter", "kind": "method"}
        for target in targets
        for name in better
    ]

    def load(target: str, variant: str) -> Scored | None:
        return Scored.of(_scores(variant, lost), 1.0) if variant in lost else None

    case = {"model": "lenet", "dataset": "mnist"}
    comparisons += compare_case(case, LABELS, FP32, groups, pairs, load)
    tensors = {"model": "lenet", "dataset": "mnist", "calibrator": "minmax", "baseline": "entropy"}
    scales = [
        {**tensors, "tensor": "conv1", "ratio": 1.49, "low": 1.4, "high": 1.6},
        {**tensors, "tensor": "(Unnamed Layer* 4) [Fully Connected]_output", "ratio": 0.98, "low": 0.98, "high": 0.98},
    ]
    judged = typed(verdicts, VERDICTS)
    timed = [((*CASE, target, name), known) for target in targets for name, known in (cycles or {}).items()]
    costs = typed((cost(key, known, extrapolated="fp16" in key) for key, known in timed), COSTS)
    operations = [
        operation(key, number, known // 2, others=str(number + 1), layers=layers)
        for key, known in timed
        if known is not None
        for number, layers in ((0, "conv1"), (2, "ip1, relu1"))
    ]
    return evidence_of(
        accuracies,
        comparisons,
        groups,
        scales=typed(scales, RATIOS),
        layers=typed(layers, LAYERS),
        verdicts=judged,
        costs=costs,
        operations=typed(operations, OPERATIONS),
    )
