"""A sweep that measures one case by labels and one without, by a command too: from images to the report."""

import copy
import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from nvdla_quant.network.files import write_model
from nvdla_quant.report.results import read_results
from tests.networks.heads import small_heads
from tests.sweeps import plan, run

pytestmark = pytest.mark.e2e

RUN = "results/heads/bare/nv_small/int8-per-filter-minmax"
NUMBERING = "import sys, numpy\nfor one in numpy.load(sys.argv[-2])['classes']: print(one.max())\n"


@pytest.fixture(scope="module")
def finished(new_checkout: Callable[..., Path], tiny_config: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """A checkout after a run without figures of labels, and its configuration."""
    checkout = new_checkout()
    write_model(small_heads(), [checkout / "inputs/heads.prototxt", checkout / "inputs/heads.caffemodel"])
    images = np.random.default_rng(1).integers(0, 256, (160, 2, 2), np.uint8).repeat(4, 1).repeat(4, 2)
    np.savez(checkout / "inputs/bare.npz", images=images)
    (checkout / "number.py").write_text(NUMBERING)
    config = copy.deepcopy(tiny_config)
    preprocessing = config["models"]["tiny"]["preprocessing"]
    files = {"prototxt": "inputs/heads.prototxt", "caffemodel": "inputs/heads.caffemodel"}
    config["models"]["heads"] = {**files, "preprocessing": preprocessing}
    config["datasets"]["bare"] = {"source": {"format": "npz", "path": "inputs/bare.npz"}, "calibration_pool": 32}
    measured = {"metric": "command", "command": [sys.executable, "number.py"], "argmax": True, "peak": 2.0}
    config["cases"].append({"model": "heads", "dataset": "bare", **measured})
    config |= {"targets": ["nv_small"], "raw_dumps": {"format": "text", "images": 2}}
    config["variants"] = [{"precision": "int8", "mode": "per-filter", "calibrator": "minmax"}]
    (checkout / "config.yaml").write_text(yaml.safe_dump(config))
    made = "results/summary.tsv", "results/fidelity.tsv", "results/report/fidelity.svg"
    raw = [f"results/{case}/calibration/minmax/table.raw.json" for case in ("tiny/noise", "heads/bare")]
    done = run(checkout, *made, *raw, f"{RUN}/dumps/1-of-1.dimg")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return checkout, config


def test_both_kinds_are_in_the_tables(finished: tuple[Path, dict[str, Any]]) -> None:
    checkout, _ = finished
    with (checkout / "results/summary.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [(row["model"], row["metric"], bool(row["top1"]), bool(row["sqnr"])) for row in rows] == [
        *[("tiny", "classification", True, False)] * 2,
        ("heads", "command", False, True),
    ]
    assert float(rows[2]["sqnr"]) > 25
    assert rows[2]["verdict"] == "ok"
    with (checkout / "results/fidelity.tsv").open() as file:
        outputs = list(csv.DictReader(file, delimiter="\t"))
    assert [row["output"] for row in outputs] == ["boxes", "classes"]
    assert all(float(row["pixel_agreement"]) > 80 for row in outputs)


def test_every_artefact_of_the_case_is_there(finished: tuple[Path, dict[str, Any]]) -> None:
    checkout = finished[0]
    record = json.loads((checkout / RUN / "fidelity.json").read_text())
    assert (record["n"], [one["name"] for one in record["outputs"]]) == (128, ["boxes", "classes"])
    with np.load(checkout / RUN / "dumps/1-of-1.npz") as dumps:
        assert {"outputs/boxes", "outputs/classes"} < set(dumps.files)
    assert sorted(path.name for path in (checkout / RUN / "dumps/1-of-1.dimg").glob("*.dimg")) == [
        f"00000{number}-{name}.dimg" for number in (0, 1) for name in ("boxes", "classes")
    ]
    assert {"fidelity.svg", "fidelity.pdf"} <= {path.name for path in (checkout / "results/report").iterdir()}
    found = read_results(checkout / "results")
    assert set(found.summary["model"]) == {"tiny", "heads"}
    assert found.outputs["output"].tolist() == ["boxes", "classes"]


def test_another_command_asks_again_and_runs_nothing(finished: tuple[Path, dict[str, Any]]) -> None:
    """The script is an input of what it numbers."""
    checkout, config = finished
    assert not {"number_reference", "run_loadable", "score_fidelity"} & plan(checkout, config).keys()
    script = checkout / "number.py"
    script.write_text(NUMBERING.replace("max", "min"))
    jobs = plan(checkout, config)
    assert {jobs[name] for name in ("number_reference", "number_variant", "score_fidelity", "compare_fidelities")} == {
        1
    }
    assert not {"run_loadable", "compile_loadable", "score_variant", "compute_reference"} & jobs.keys()
