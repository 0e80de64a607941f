"""The report of what is measured without labels: tables, figure, recommendation, and sweeps that mix both."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nvdla_quant.evaluation.accuracy import Subject
from nvdla_quant.evaluation.fidelity.figures import Fidelity, Output, Task, measure, relative_noise
from nvdla_quant.evaluation.fidelity.images import errors_of
from nvdla_quant.evaluation.fidelity.pairs import Quality, compare_case
from nvdla_quant.report.charts.time import time_chart
from nvdla_quant.report.evidence import Evidence, evidence_of, pair_rows, seed_rows
from nvdla_quant.report.fidelity.chart import fidelity_chart
from nvdla_quant.report.fidelity.frames import ADDED, MEASURED
from nvdla_quant.report.fidelity.tables import fidelity_sheets
from nvdla_quant.report.fidelity.together import pairs_together, seeds_together, summary_together
from nvdla_quant.report.frames import (
    COSTS,
    LAYERS,
    OPERATIONS,
    PAIRS,
    RATIOS,
    SEEDS,
    SUMMARY,
    VERDICTS,
    records,
    to_tsv,
    typed,
)
from nvdla_quant.report.page import render_page
from nvdla_quant.report.recommendation.answers import closing, glances, recommend
from nvdla_quant.report.terminal import render_fidelity
from tests.unit.report.reported import cost, operation, sweep_evidence, verdict
from tests.unit.report.test_page import MANIFEST

CASE = ("unet", "streets")
EXACT = np.random.default_rng(0).normal(0, 1, (30, 3, 4, 4)).astype(np.float32)
NOISE = {"fp16": 0.001, "int8-filter": 0.02, "int8-kernel-seed-0": 0.2, "int8-kernel-seed-1": 0.3}
"""Noise of each variant, of a signal of 1; 0.1 is an SQNR of 20 dB."""
CYCLES = {"fp16": 4000, "int8-filter": 2000, "int8-kernel-seed-0": 1000, "int8-kernel-seed-1": 1000}


def _outputs(noise: float) -> list[Output]:
    values = EXACT + np.random.default_rng(1).normal(0, noise, EXACT.shape)
    errors = errors_of(values.astype(np.float16), None, EXACT, argmax=True)
    return [Output("mask", (3, 4, 4), None, errors), Output("edges", (3, 4, 4), 0.01, errors)]


def _numbers(noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers of which fp32's are 1: each image's is off by about the noise."""
    return 1 + np.abs(np.random.default_rng(2).normal(noise, noise / 10, 30)), np.ones(30)


@cache
def _fidelity(name: str, noise: float, command: bool) -> Fidelity:
    int8 = name.startswith("int8")
    named = {
        **dict(zip(("model", "dataset"), CASE, strict=True)),
        **{"target": "nv_full", "variant": name, "precision": "int8" if int8 else "fp16"},
        **({"mode": f"per-{name.split('-')[1]}", "calibrator": "minmax"} if int8 else {}),
        **{"compile_backend": "builtin", "run_backend": "emulator"},
    }
    subject = Subject(**dict.fromkeys(Subject.__dataclass_fields__) | named)
    numbers = _numbers(noise) if command else None
    task = Task(argmax=True, peak=1.0, lower_is_better=True)
    return measure(subject, _outputs(noise), task, exactness="bit-exact", numbers=numbers)


@cache
def _evidence(*, command: bool = False, broken: str = "", with_labels: bool = False) -> Evidence:
    """Return what a sweep over `NOISE` found; `broken` is a variant of which an output means nothing."""
    place = {"model": CASE[0], "dataset": CASE[1], "target": "nv_full"}
    seeds = ["int8-kernel-seed-0", "int8-kernel-seed-1"]
    groups = [
        {**place, "name": name, "series": name, "images": 8, "variants": members}
        for name, members in (("fp16", ["fp16"]), ("int8-filter", ["int8-filter"]), ("int8-kernel", seeds))
    ]
    found = [_fidelity(name, noise, command) for name, noise in NOISE.items()]
    if broken:
        at = list(NOISE).index(broken)
        lost = replace(found[at].outputs[1], sqnr=None, error="all zero: every value of all 30 images is 0")
        found[at] = replace(found[at], sqnr=None, outputs=(found[at].outputs[0], lost))

    def load(_: str, variant: str) -> Quality | None:
        noise = relative_noise(_outputs(NOISE[variant]))
        numbers = _numbers(NOISE[variant])[0] if command else None
        return None if variant == broken else Quality(noise, numbers)

    pairs = [{"target": "nv_full", "variant": "int8-filter", "baseline": seeds[0], "kind": "mode"}]
    case = {"model": CASE[0], "dataset": CASE[1]}
    reference = Quality(np.zeros(30), np.ones(30)) if command else None
    options: dict[str, Any] = {"reference": reference, "lower_is_better": True}
    compared = list(compare_case(case, groups, pairs, load, **options))
    judged = typed([verdict((*CASE, "nv_full", name), "ok") for name in NOISE], VERDICTS)
    costs = typed([cost((*CASE, "nv_full", name), cycles) for name, cycles in CYCLES.items()], COSTS)
    operations = [operation((*CASE, "nv_full", name), 0, cycles, layers="mask") for name, cycles in CYCLES.items()]
    empty = {
        "scales": typed([], RATIOS),
        "layers": typed([], LAYERS),
        "operations": typed(operations, OPERATIONS),
    }
    alone = evidence_of(
        [], [], groups, verdicts=judged, costs=costs, fidelities=found, fidelity_pairs=compared, **empty
    )
    if not with_labels:
        return alone
    names = ("fidelity", "fidelity_groups", "outputs", "fidelity_pairs")
    return replace(sweep_evidence(), **{name: getattr(alone, name) for name in names})


def test_the_fastest_that_keeps_the_signal() -> None:
    """int8-kernel has less than 20 dB, int8-filter more, and fp16 is slower."""
    (answer,) = recommend(_evidence())
    assert answer.choice is not None
    assert answer.choice["group"] == "int8-filter"
    assert answer.headline == (
        "Use int8 per-filter with 8 calibration images (int8-filter), the fastest that keeps 99 % of its outputs' "
        "signal (an SQNR of 20 dB)."
    )
    said = " ".join(answer.reasons)
    assert "fp16 is nearer to fp32, significantly; int8-filter is good enough and faster, or int8." in said
    assert "The worst of 2 outputs is mask" in said
    assert "per-filter beside per-kernel: 20." in said.replace("+", "")
    assert "int8-kernel takes 0.50 times as long, but it does not keep 99 %" in answer.times[0]


def test_where_nothing_keeps_it_the_best_is_named() -> None:
    """Of 99.9996 %, 54 dB, fp16 alone has enough: 60 dB; of 100 % nothing has."""
    (answer,) = recommend(_evidence(), 99.9996)
    assert answer.choice is not None
    assert answer.choice["group"] == "fp16"
    (none,) = recommend(_evidence(), 100)
    assert none.headline == (
        "No variant keeps 100 % of its outputs' signal (an SQNR of no noise at all); of the best, use fp16 (fp16)."
    )


def test_a_wrong_output_is_never_recommended() -> None:
    evidence = _evidence(broken="int8-filter")
    (answer,) = recommend(evidence)
    assert answer.choice is not None
    assert answer.choice["group"] == "fp16"
    assert "Left out, since an output is wrong: int8-filter; see Wrong outputs." in answer.reasons
    text = render_fidelity(evidence.fidelity)
    assert "error: nv_full int8-filter: edges: all zero: every value of all 30 images is 0" in text
    sheets = {sheet.title: sheet for sheet in fidelity_sheets(evidence)}
    lines = sheets["unet on streets: outputs beside fp32"].cells
    assert lines[lines["output"] == "edges"].iloc[1, 4] == "error"


def test_a_command_decides_where_there_is_one() -> None:
    """fp32 has 1; within 1 % is fp16 alone, whose number is 1.001."""
    evidence = _evidence(command=True)
    (answer,) = recommend(evidence)
    assert answer.choice is not None
    assert answer.choice["group"] == "fp16"
    assert answer.headline == "Use fp16 (fp16), the fastest that keeps the command's numbers of fp32 within 1 %."
    assert "The command gives it 1.001 and fp32 1, a difference of +0.0009924" in answer.reasons[0]
    (loose,) = recommend(evidence, 90)
    assert loose.choice is not None
    assert loose.choice["group"] == "int8-filter"
    titles = [sheet.title for sheet in fidelity_sheets(evidence)]
    assert "unet on streets: by the command" in titles
    assert "unet on streets: every variant beside fp32, by the command" in titles
    assert "number fp32's" in " ".join(render_fidelity(evidence.fidelity, width=200).split())


def test_tables_of_a_sweep_that_mixes_both() -> None:
    """Lines of labels are as they are alone, then those without; columns of both, those of labels first."""
    alone, mixed = sweep_evidence(), _evidence(with_labels=True)
    for together, rows, plain, added in (
        (summary_together, lambda of: (of,), SUMMARY, MEASURED),
        (pairs_together, lambda of: (of, pair_rows(of)), PAIRS, ADDED),
    ):
        frame, schema = together(*rows(mixed))
        assert list(schema) == [*plain, *added]
        before, unchanged = together(*rows(alone))
        assert list(unchanged) == list(plain)
        labelled = frame[frame["model"] == "lenet"]
        pd.testing.assert_frame_equal(
            labelled[list(plain)].reset_index(drop=True), before[list(plain)].reset_index(drop=True)
        )
        assert len(frame) > len(labelled)
        to_tsv(frame)
    frame, _ = summary_together(mixed)
    assert frame["metric"].tolist() == ["classification"] * (len(frame) - 4) + ["fidelity"] * 4
    seeds, schema = seeds_together(mixed, seed_rows(mixed))
    assert list(schema)[: len(SEEDS)] == list(SEEDS)
    (line,) = records(seeds[seeds["model"] == "unet"])
    assert (line["variant"], line["seeds"]) == ("int8-kernel", 2)
    assert line["sqnr_mean"] == pytest.approx((line["sqnr_min"] + line["sqnr_max"]) / 2)


def test_answers_of_both_kinds_stand_beside_each_other() -> None:
    mixed = _evidence(with_labels=True)
    first, second = glances(recommend(mixed))
    assert (first.title, second.title) == ("At a glance", "At a glance: outputs beside fp32")
    assert list(second.cells.columns) == [
        *("model and data set", "targets", "use", "n", "SQNR dB", "95 %", "PSNR dB", "ms", "bound"),
    ]
    assert "unet on streets, nv_full: Use int8 per-filter" in closing(mixed)
    assert closing(mixed).startswith(closing(sweep_evidence()).partition("lenet on mnist, nv_full: ")[0])


@pytest.mark.parametrize("command", [False, True])
def test_figures_are_in_the_grammar(command: bool) -> None:
    """A panel for each output, and one for the command; time stands against SQNR."""
    evidence = _evidence(command=command, broken="int8-filter")
    chart = fidelity_chart(evidence).to_dict()
    titles = [panel["title"]["text"] for panel in chart["concat"]]
    assert titles == ["unet on streets, nv_full"] * 2 + ["By the command"] * command
    times = time_chart(evidence, 99).to_dict()
    (panel,) = times["concat"]
    assert "SQNR beside fp32 (dB)" in str(panel)


def test_the_page_has_both_kinds() -> None:
    """Of a sweep without labels there is no section of accuracies."""
    mixed, alone = (render_page(of, 99, [], {}, MANIFEST) for of in (_evidence(with_labels=True), _evidence()))
    for page, accuracy in ((mixed, True), (alone, False)):
        assert ('<h2 id="accuracy">' in page) == accuracy
        assert '<h2 id="fidelity">' in page
        assert "unet on streets: outputs beside fp32" in page
        assert "Use int8 per-filter with 8 calibration images" in page


def test_without_such_cases_there_is_nothing_to_draw() -> None:
    assert "No case is measured without labels." in str(fidelity_chart(sweep_evidence()).to_dict())
