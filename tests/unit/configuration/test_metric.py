"""What a case is measured by: records, refusals, files and parameters that follow."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from nvdla_quant.configuration.artefacts import Artefacts
from nvdla_quant.configuration.load import load_configuration
from nvdla_quant.configuration.parameters.job import Job
from nvdla_quant.configuration.records import Metric
from nvdla_quant.errors import ConfigError

CONFIG = """
models:
  net: { prototxt: n.prototxt, caffemodel: n.caffemodel, preprocessing: { channels: gray } }
datasets:
  seen: { source: { format: npz, path: s.npz }, calibration_pool: 4 }
  bare: { source: { format: npz, path: b.npz }, calibration_pool: 4 }
cases: [{ model: net, dataset: seen }, { model: net, dataset: bare, metric: fidelity, argmax: true, peak: 255 }]
calibrators: { minmax: { method: minmax } }
targets: [nv_small]
variants: [{ precision: int8, mode: per-filter, calibrator: minmax }]
"""


def config(**case: Any) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(CONFIG)
    found["cases"][1] = {"model": "net", "dataset": "bare", **case}
    return found


def job(found: dict[str, Any]) -> Job:
    configuration = load_configuration(found)
    return Job(configuration, Artefacts(configuration, "results"))


BARE: Any = SimpleNamespace(model="net", dataset="bare", target="nv_small", variant="int8-per-filter-minmax")
RUN = "results/net/bare/nv_small/int8-per-filter-minmax"


def test_a_case_is_measured_by_labels_unless_it_says_otherwise() -> None:
    cases = load_configuration(yaml.safe_load(CONFIG)).cases
    assert [case.metric for case in cases] == [Metric(), Metric("fidelity", argmax=True, peak=255)]
    assert [case.is_classified for case in cases] == [True, False]


def test_files_follow_the_metric() -> None:
    """Each case has the files of its own kind, and none of the other's; both have what does not depend on it."""
    files = job(yaml.safe_load(CONFIG)).artefacts
    assert [path for path in files.accuracies if "/bare/" in path] == []
    assert files.fidelities == [f"{RUN}/fidelity.json"]
    assert files.fidelity_pairs == ["results/net/bare/fidelity.pairs.json"]
    assert [path for path in files.comparisons if "/bare/" in path] == []
    made = {*files.exact, *files.processor_dependent}
    assert {f"{RUN}/{name}" for name in ("fidelity.json", "fidelity.npz", "verdict.json", "cost.json")} <= made
    assert {"results/fidelity.tsv", "results/report/fidelity.svg", "results/net/seen/reference/accuracy.json"} <= made
    assert not any(path.endswith("numbers.npz") for path in made)


def test_by_labels_alone_nothing_is_added() -> None:
    """A sweep of classifiers makes the files that it made."""
    files = job(config()).artefacts
    assert files.fidelities == files.fidelity_pairs == []
    assert not any("fidelity" in path for path in [*files.exact, *files.processor_dependent])


def test_a_command_and_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words that are files make results stale; what it says of fp32 and of each run are files of their own."""
    monkeypatch.chdir(tmp_path)
    Path("score.py").touch()
    found = job(config(metric="command", command=["python", "score.py", "--iou", "0.5"], better="lower"))
    assert found.command_files(BARE) == ["score.py"]
    assert "score.py" in found.artefacts.inputs
    assert found.command(BARE) == ["python", "score.py", "--iou", "0.5"]
    assert found.numbers(BARE) == [f"{RUN}/numbers.npz", "results/net/bare/reference/numbers.npz"]
    assert {*found.numbers(BARE)} <= {*found.artefacts.processor_dependent}
    assert found.task(BARE) == {"argmax": False, "peak": None, "lower_is_better": True}
    assert (found.fidelities(BARE), found.image_errors(BARE)) == ([f"{RUN}/fidelity.json"], [f"{RUN}/fidelity.npz"])


def test_fidelity_alone_has_no_numbers() -> None:
    found = job(yaml.safe_load(CONFIG))
    assert (found.metric(BARE), found.command(BARE), found.numbers(BARE)) == ("fidelity", [], [])
    assert found.task(BARE) == {"argmax": True, "peak": 255, "lower_is_better": False}


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ({"argmax": True}, r"cases\[1\].argmax: metric classification has none; remove it, or set metric: fidelity"),
        ({"peak": 1}, r"cases\[1\].peak: metric classification has none"),
        ({"metric": "fidelity", "command": ["x"]}, r"cases\[1\].command: metric fidelity has none; .* metric: command"),
        ({"metric": "fidelity", "better": "lower"}, r"cases\[1\].better: metric fidelity has none"),
        ({"metric": "command"}, r"cases\[1\].command: metric command needs the program"),
        ({"metric": "mAP"}, "mAP"),
        ({"metric": "fidelity", "peak": 0}, "peak"),
        ({"metric": "command", "command": []}, "command"),
    ],
)
def test_what_a_metric_does_not_have_is_refused(case: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_configuration(config(**case))


def test_engines_and_quantized_files_are_classifiers() -> None:
    """TensorRT's scores are of labels; beside fp32's outputs there are none."""
    found = config(metric="fidelity")
    found["calibrators"]["trt"] = {"method": "tensorrt-entropy", "images": 4, "batch_size": 4}
    found["variants"].append({"precision": "int8", "mode": "per-filter", "calibrator": "trt"})
    files = job(found).artefacts
    assert all("/seen/" in path for path in [*files.accuracies, *files.comparisons] if "tensorrt/" in path)
    assert any("/seen/tensorrt/" in path for path in files.accuracies)
