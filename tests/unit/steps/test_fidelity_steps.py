"""Steps that measure without labels: outputs find their places, a command its numbers, and what is wrong is said."""

import sys
from collections.abc import Mapping
from math import nan
from pathlib import Path

import numpy as np
import pytest
import yaml

from nvdla_quant.configuration.load import load_configuration
from nvdla_quant.errors import DumpError, NetworkError, ToolError
from nvdla_quant.evaluation.accuracy import Subject
from nvdla_quant.evaluation.fidelity.figures import read_fidelity
from nvdla_quant.evaluation.fidelity.pairs import read_pairs
from nvdla_quant.images.selection import read_images
from nvdla_quant.jobs.files import read_npz, write_npz
from nvdla_quant.network.files import write_model
from nvdla_quant.runtime.base import named_outputs, outputs_in
from nvdla_quant.steps.images import select_test_images
from nvdla_quant.steps.measures.command import number_reference, number_variant, numbers_in
from nvdla_quant.steps.measures.fidelity import compare_fidelities, score_fidelity
from nvdla_quant.steps.reference import compute_reference
from nvdla_quant.table.table import CalibrationTable, write_table
from tests.networks.heads import small_heads

MODEL = ["heads.prototxt", "heads.caffemodel"]
PREPROCESSING = {"channels": "gray", "scale": 0.0078125, "mean": [128]}
DATASET = {"source": {"format": "npz", "path": "images.npz"}, "calibration_pool": 4, "pool_seed": 0}
STEPS = {"boxes": 0.04, "classes": 0.06}
SUBJECT = dict.fromkeys(Subject.__dataclass_fields__) | {"model": "m", "dataset": "d", "variant": "v", "target": "t"}
TASK = {"argmax": True, "peak": 1.0, "lower_is_better": False}
NUMBERING = """
import sys, numpy
outputs, images = map(numpy.load, sys.argv[-2:])
assert sorted(images) == ["indices", "names", "pixels"] and outputs["boxes"].dtype == numpy.float32
print("said", file=sys.stderr)
for values in outputs["classes"]:
    print(values.mean())
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two shards of images without labels, fp32's outputs for them, and the network's table."""
    monkeypatch.chdir(tmp_path)
    write_model(small_heads(), MODEL)
    np.savez("images.npz", images=np.random.default_rng(1).integers(0, 256, (24, 8, 8), np.uint8))
    for shard in (0, 1):
        part = {"shard": shard, "shards": 2, "metric": "fidelity"}
        select_test_images(MODEL, f"images-{shard}.npz", DATASET, PREPROCESSING, **part)
        compute_reference(MODEL, f"images-{shard}.npz", f"fp32-{shard}.npz", PREPROCESSING, "fidelity")
    write_table(CalibrationTable({"data": 0.01, **STEPS}), Path("table.json"))
    return tmp_path


def quantized(shard: int) -> dict[str, np.ndarray]:
    """Return fp32's outputs in steps of the table."""
    exact = outputs_in(read_npz(Path(f"fp32-{shard}.npz")))
    return {name: np.clip(np.round(exact[name] / step), -128, 127).astype(np.int8) for name, step in STEPS.items()}


def dump(shard: int, outputs: Mapping[str, np.ndarray], **more: np.ndarray) -> str:
    """Write what a device gave."""
    path = f"dump-{shard}.npz"
    write_npz(
        path, {**named_outputs(outputs), "exactness": np.array(["bit-exact"]), "backend": np.array(["e"]), **more}
    )
    return path


REFERENCE = ["fp32-0.npz", "fp32-1.npz"]
IMAGES = ["images-0.npz", "images-1.npz"]


def test_each_output_has_its_own_step_and_place(folder: Path) -> None:
    """Outputs go by name, in whatever order the loadable has them: each is within half a step of fp32's."""
    dumps = [dump(shard, dict(reversed(quantized(shard).items()))) for shard in (0, 1)]
    score_fidelity(dumps, REFERENCE, MODEL[:1], "table.json", [], "f.json", "f.npz", SUBJECT, TASK)
    found = read_fidelity("f.json")
    assert (found.n, found.exactness) == (20, "bit-exact")
    assert [(one.name, one.shape, one.step) for one in found.outputs] == [
        ("boxes", (4, 6, 6), 0.04),
        ("classes", (5, 4, 4), 0.06),
    ]
    for one in found.outputs:
        assert one.max_error is not None
        assert one.max_error <= 0.5001 * one.step
        assert one.agreement is not None
        assert one.agreement.value > 0.95


def test_swapped_outputs_show(folder: Path) -> None:
    """What is called `boxes` but holds the other is of another size here."""
    first, second = quantized(0).values()
    files = [dump(0, {"boxes": second, "classes": first})], REFERENCE[:1], MODEL[:1], "table.json"
    with pytest.raises(DumpError, match=r"\(10, 5, 4, 4\), but fp32's is \(10, 4, 6, 6\)"):
        score_fidelity(*files, [], "f.json", "f.npz", SUBJECT, TASK)


def test_images_that_gave_no_output_are_left_out(folder: Path) -> None:
    lost = np.arange(10) != 3
    zeroed = {name: values * lost[:, None, None, None] for name, values in quantized(0).items()}
    dumps = [dump(0, zeroed, ran=lost), dump(1, quantized(1), ran=np.ones(10, np.bool_))]
    score_fidelity(dumps, REFERENCE, MODEL[:1], "table.json", [], "f.json", "f.npz", SUBJECT, TASK)
    found = read_fidelity("f.json")
    assert (found.n, found.exactness) == (19, "bit-exact; 1 of 20 images gave no output and are left out")
    assert np.flatnonzero(np.isnan(read_npz(Path("f.npz"))["noise"])).tolist() == [3]


def test_a_command_numbers_fp32_and_variants(folder: Path) -> None:
    """The number of fp32 is the mean of its own values; that of an image without output is none."""
    Path("number.py").write_text(NUMBERING)
    command = [sys.executable, "number.py"]
    number_reference(REFERENCE, IMAGES, command, "fp32-numbers.npz")
    exact = np.concatenate([outputs_in(read_npz(Path(path)))["classes"] for path in REFERENCE])
    theirs = read_npz(Path("fp32-numbers.npz"))["numbers"]
    np.testing.assert_allclose(theirs, exact.mean(axis=(1, 2, 3)), rtol=1e-5)
    ran = np.arange(10) != 3
    dumps = [dump(0, quantized(0), ran=ran), dump(1, quantized(1), ran=np.ones(10, np.bool_))]
    number_variant(dumps, REFERENCE, MODEL[:1], "table.json", IMAGES, command, "numbers.npz")
    ours = read_npz(Path("numbers.npz"))["numbers"]
    assert np.flatnonzero(np.isnan(ours)).tolist() == [3]
    np.testing.assert_allclose(ours[np.isfinite(ours)], theirs[np.isfinite(ours)], atol=0.03)
    numbers = ["numbers.npz", "fp32-numbers.npz"]
    score_fidelity(dumps, REFERENCE, MODEL[:1], "table.json", numbers, "f.json", "f.npz", SUBJECT, TASK)
    found = read_fidelity("f.json")
    assert found.numbers is not None
    assert found.numbers.delta.value == pytest.approx(np.nanmean(ours - theirs))
    files = {"fidelities": ["f.json"], "images": ["f.npz"], "numbers": ["fp32-numbers.npz"]}
    groups = [{"target": "t", "name": "v", "variants": ["v"]}]
    compare_fidelities({"model": "m", "dataset": "d"}, groups, [], [("t", "v")], files, TASK, "pairs.json")
    (pair,) = read_pairs("pairs.json")
    assert (pair.kind, pair.measure, pair.n) == ("fp32", "number", 19)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import sys; sys.exit(3)", "ended with status 3; the log has what it said"),
        ("print('mAP 0.5')", "line 1 of its output is 'mAP 0.5', expected a number"),
        ("print(1)", "it printed 1 numbers, expected one a line for each of the 20 test images"),
        ("print('inf')", "line 1 of its output is infinite"),
    ],
)
def test_a_command_that_does_something_else(folder: Path, script: str, said: str) -> None:
    with pytest.raises(ToolError, match=said):
        number_reference(REFERENCE, IMAGES, [sys.executable, "-c", script], "numbers.npz")
    assert not Path("numbers.npz").exists()


def test_a_command_that_is_not_there(folder: Path) -> None:
    with pytest.raises(ToolError, match="'no-such-program' is not an executable"):
        number_reference(REFERENCE, IMAGES, ["no-such-program"], "numbers.npz")


def test_numbers_may_be_missing() -> None:
    found = numbers_in("1\nnan\n2.5", 3, "c")
    np.testing.assert_array_equal(found, [1, nan, 2.5])


def test_highest_channels_need_channels(folder: Path) -> None:
    """Of two outputs one with pixels of several channels is enough; of none it is an error."""
    exact = outputs_in(read_npz(Path("fp32-0.npz")))
    write_npz("flat.npz", named_outputs({name: values.reshape(10, -1) for name, values in exact.items()}))
    files = [dump(0, quantized(0))], ["flat.npz"], MODEL[:1], "table.json"
    with pytest.raises(DumpError, match=r"argmax: no output \(boxes, classes\) has pixels of several channels"):
        score_fidelity(*files, [], "f.json", "f.npz", SUBJECT, TASK)


def test_top_1_is_of_one_output(folder: Path) -> None:
    with pytest.raises(
        NetworkError, match=r"2 outputs \(boxes, classes\), and top-1 is of one; give the case metric: f"
    ):
        select_test_images(MODEL, "x.npz", DATASET, PREPROCESSING, shard=0, shards=1)


def test_images_need_no_labels(folder: Path) -> None:
    assert read_images(Path(IMAGES[0])).labels is None


def test_the_example_of_a_command(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`config/denoise.yaml` in fp32: 24.03 dB against the clean images; `training/README.md` has 24.02, unclipped."""
    monkeypatch.chdir(repository)
    settings = load_configuration(yaml.safe_load(Path("config/denoise.yaml").read_text())).settings
    (case,), (model,), (dataset,) = settings["cases"], settings["models"].values(), settings["datasets"].values()
    files, preprocessing = [model["prototxt"], model["caffemodel"]], model["preprocessing"]
    images, reference, numbers = (str(tmp_path / name) for name in ("images.npz", "fp32.npz", "numbers.npz"))
    select_test_images(files, images, dataset, preprocessing, shard=0, shards=1, metric=case["metric"])
    compute_reference(files, images, reference, preprocessing, case["metric"])
    number_reference([reference], [images], [sys.executable, *case["command"][1:]], numbers)
    found = read_npz(Path(numbers))["numbers"]
    assert len(found) == 120
    assert found.mean() == pytest.approx(24.03, abs=0.01)
