"""The default sweep from end to end, with 1,000 test images of each data set, in a copy of the checkout.

The short form has two of the thirteen runs of each network, and in these four every value of every choice occurs; with
``--hypothesis-profile long`` it is the whole sweep, as ``config/quick.yaml`` has it.
"""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from nvdla_quant.evaluation.accuracy import read_accuracy
from tests.profiles import is_long
from tests.sweeps import run

pytestmark = pytest.mark.e2e
FEWER = {
    "lenet/mnist": {("nv_full", "fp16"), ("nv_small", "int8-per-filter-minmax")},
    "resnet20/fashion-mnist": {("nv_full", "int8-per-filter-entropy"), ("nv_large", "int8-per-kernel-entropy")},
}
"""The runs of each network in the short form: target and variant."""


@pytest.fixture(scope="module")
def results(new_checkout: Callable[..., Path]) -> Path:
    checkout = new_checkout("resources", "config")
    configs = ["config/quick.yaml"]
    if not is_long():
        include = [
            {"model": case.partition("/")[0], "target": target, "variant": variant}
            for case, runs in FEWER.items()
            for target, variant in runs
        ]
        (checkout / "fewer.yaml").write_text(yaml.safe_dump({"include": include}))
        configs.append("fewer.yaml")
    finished = run(checkout, "--configfile", *configs)
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-4000:]
    assert "int8-per-filter-entropy" in finished.stdout, "no summary on the terminal"
    return checkout / "results"


def rows_of(results: Path) -> list[dict[str, str]]:
    with (results / "summary.tsv").open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


CASES = {"lenet/mnist": 0.9913, "resnet20/fashion-mnist": 0.9410}
"""fp32 accuracy on all test images (training/README.md)."""


def test_a_row_for_every_variant_and_fp32(results: Path) -> None:
    found = {(f"{row['model']}/{row['dataset']}", row["target"], row["variant"]) for row in rows_of(results)}
    runs = FEWER
    if is_long():
        modes, calibrators = ("per-kernel", "per-filter"), ("entropy", "minmax")
        int8 = [f"int8-{mode}-{calibrator}" for mode in modes for calibrator in calibrators]
        every = {(target, variant) for target in ("nv_full", "nv_large", "nv_small") for variant in int8}
        runs = dict.fromkeys(CASES, every | {("nv_full", "fp16")})
    assert found == {(case, *run) for case in CASES for run in runs[case] | {("", "fp32")}}
    assert all(row["n"] == "1000" and not row["error"] for row in rows_of(results))


@pytest.mark.parametrize("case", CASES)
def test_fp32_is_near_what_all_images_give(results: Path, case: str) -> None:
    """A thousand images: 2.6 standard deviations of a binomial share, which 1 of 100 samples exceeds."""
    accuracy = read_accuracy(results / case / "reference" / "accuracy.json")
    share = CASES[case]
    assert accuracy.output.top1.value == pytest.approx(share, abs=2.6 * (share * (1 - share) / 1000) ** 0.5)


@pytest.mark.parametrize("case", CASES)
def test_int8_is_close_to_fp32(results: Path, case: str) -> None:
    rows = [row for row in rows_of(results) if f"{row['model']}/{row['dataset']}" == case]
    reference = next(float(row["top1"]) for row in rows if row["variant"] == "fp32")
    for row in rows:
        if row["mode"]:
            bound = 1.0 if row["mode"] == "per-filter" else 2.0
            assert abs(float(row["logits_top1"]) - reference) <= bound, row["variant"]
            assert abs(float(row["top1"]) - reference) <= bound, row["variant"]


def test_every_loadable_is_verified(results: Path) -> None:
    verdicts = {row["variant"]: row["verdict"] for row in rows_of(results) if row["variant"] != "fp32"}
    assert set(verdicts.values()) == {"ok"}


def test_every_artefact_is_in_the_manifest(results: Path) -> None:
    listed = json.loads((results / "manifest.json").read_text())["artefacts"]
    unlisted = {"manifest.json", "report/report.html"}
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
    for item in ("summary.tsv", "pairs.tsv", "report/layers.svg", "report/report.html", "Wilson 95 % intervals"):
        assert item in page


def test_the_page_answers_for_every_case(results: Path) -> None:
    page = (results / "report" / "report.html").read_text()
    assert "snakemake --configfile config/quick.yaml" in page
    for case in CASES:
        assert f"<h3>{case.replace('/', ' on ')}; " in page
    assert page.count('<p class="use">Use ') >= len(CASES)
    assert "run_loadable" in page
