"""The default configuration from end to end, as the README runs it, in a copy of the checkout."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nvdla_quant.evaluation.accuracy import read_accuracy
from tests.sweeps import run

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def results(new_checkout: Callable[..., Path]) -> Path:
    checkout = new_checkout("resources", "config.yaml")
    finished = run(checkout)
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-4000:]
    assert "int8-per-filter-entropy" in finished.stdout, "no summary on the terminal"
    return checkout / "results"


def rows_of(results: Path) -> list[dict[str, str]]:
    with (results / "summary.tsv").open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_a_row_for_every_variant_and_fp32(results: Path) -> None:
    found = {(row["target"], row["variant"]) for row in rows_of(results)}
    int8 = [
        f"int8-{mode}-{calibrator}" for mode in ("per-kernel", "per-filter") for calibrator in ("entropy", "minmax")
    ]
    expected = {(target, variant) for target in ("nv_full", "nv_large", "nv_small") for variant in int8}
    assert found == expected | {("", "fp32"), ("nv_full", "fp16")}
    assert all(row["n"] == "4500" and not row["error"] for row in rows_of(results))


def test_fp32_reaches_what_the_training_measured(results: Path) -> None:
    """training/README.md: 4,461 of the 4,500 test images."""
    accuracy = read_accuracy(results / "lenet/mnist/reference/accuracy.json")
    assert accuracy.output.top1.value == pytest.approx(4461 / 4500, abs=2 / 4500)


def test_per_filter_is_within_half_a_point_of_fp32(results: Path) -> None:
    reference = next(float(row["top1"]) for row in rows_of(results) if row["variant"] == "fp32")
    for row in rows_of(results):
        if row["mode"] == "per-filter":
            assert abs(float(row["logits_top1"]) - reference) <= 0.5, row["variant"]
            assert abs(float(row["top1"]) - reference) <= 0.5, row["variant"]


def test_every_artefact_is_in_the_manifest(results: Path) -> None:
    listed = json.loads((results / "manifest.json").read_text())["artefacts"]
    unlisted = {"manifest.json"}
    made = {
        f"results/{path.relative_to(results)}"
        for path in results.rglob("*")
        if path.is_file() and path.relative_to(results).parts[0] not in ("logs", "benchmarks")
    }
    assert made - set(listed) == {f"results/{name}" for name in unlisted}
    assert set(listed) <= made


def test_report_opens_offline(results: Path) -> None:
    done = run(results.parent, "--report", "report.html")
    assert done.returncode == 0, done.stdout + done.stderr
    page = (results.parent / "report.html").read_text()
    assert "summary.tsv" in page
    assert "Wilson 95 % intervals" in page
