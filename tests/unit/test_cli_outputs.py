"""A network of two outputs from its files to verified numbers, as a user would call the commands."""

import contextlib
import io
import json
import lzma
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import typer

from nvdla_quant.cli import main
from nvdla_quant.cli.ports import places_of
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.jobs.files import file_names
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.loadable.writer import serialize_loadable
from nvdla_quant.network.caffe.writer import write_caffemodel, write_prototxt
from nvdla_quant.runtime.dimg import read_dimg
from nvdla_quant.table.table import read_table
from tests.networks.heads import alike_heads
from tests.networks.nvidia import two_heads
from tests.verified import correlation

NETWORK = alike_heads()
MODEL = ["--prototxt", "deploy.prototxt", "--caffemodel", "weights.caffemodel"]
HEADS = ("near", "far")
MADE = [
    ("nv_small", "int8", "per-kernel"),
    ("nv_small", "int8", "per-filter"),
    ("nv_full", "int8", "per-kernel"),
    ("nv_full", "int8", "per-filter"),
    ("nv_full", "fp16", "per-kernel"),
]


def call(*arguments: object, status: int = 0) -> str:
    """Run a command that ends with this status; return what it printed, errors last."""
    printed = io.StringIO()
    with (
        patch.object(sys, "argv", ["nvdla-quant", *map(str, arguments)]),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    assert (ended.value.code or 0) == status, printed.getvalue()
    return printed.getvalue()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(1).normal(0, 1, (16, 3, 16, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, images: np.ndarray) -> Path:
    """A network and a table, which `calibrate` and `fix-table` made: it has an entry for each output."""
    folder = tmp_path_factory.mktemp("outputs")
    with contextlib.chdir(folder):
        write_prototxt(NETWORK, Path("deploy.prototxt"))
        write_caffemodel(NETWORK, Path("weights.caffemodel"))
        np.save("images.npy", images)
        np.save("calibration.npy", np.random.default_rng(0).normal(0, 1, (32, 3, 16, 16)).astype(np.float32))
        call("calibrate", *MODEL, "--images", "calibration.npy", "--method", "minmax", "--output", "calibration.cache")
        call("fix-table", *MODEL[:2], "--cache", "calibration.cache", "--output", "table.json")
        call("compile", *MODEL, "--calibtable", "table.json", "--configtarget", "nv_small", "--output", "small.nvdla")
        _feed(images, read_table(Path("table.json"))["data"], np.int8)
    return folder


@pytest.fixture(autouse=True)
def folder(files: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, which has `files`."""
    monkeypatch.chdir(files)
    return files


def _feed(images: np.ndarray, scale: float, kind: type) -> None:
    """Write the images as the device takes them: a fourth channel of zeros."""
    fed = np.zeros((len(images), 4, 16, 16), kind)
    fed[:, :3] = images if kind is np.float16 else np.clip(np.rint(images / scale), -128, 127)
    np.save(f"fed-{np.dtype(kind)}.npy", fed)


@pytest.mark.parametrize("made", MADE, ids="-".join)
def test_from_a_network_to_verified_outputs(made: tuple[str, str, str], images: np.ndarray, tmp_path: Path) -> None:
    target, precision, mode = made
    options = ["--configtarget", target, "--cprecision", precision, "--quantizationMode", mode]
    table = ["--calibtable", "table.json"] if precision == "int8" else []
    loadable, report = tmp_path / "two.nvdla", tmp_path / "compile.json"
    call("compile", *MODEL, *table, *options, "--output", loadable, "--report", report)
    outputs = json.loads(report.read_text())["outputs"]
    # A 1x1 convolution of 8 channels behind a stride of 2: 8 x 8 x 8 of each, where its own entry's step is the unit.
    scales = dict.fromkeys(HEADS, 1.0) if precision == "fp16" else read_table(Path("table.json")).scales
    assert [(one["name"], one["shape"], one["scale"]) for one in outputs] == [
        (name, [8, 8, 8], pytest.approx(scales[name])) for name in HEADS
    ]
    described = json.loads(call("inspect", loadable, "--json"))["outputs"]
    assert [(one["name"], one["shape"]) for one in described] == [(name, [1, 8, 8, 8]) for name in HEADS]
    shown = call("inspect", loadable)
    assert all(f"output {name}: 1x8x8x8" in shown for name in HEADS)
    fed = Path("fed-int8.npy" if precision == "int8" else "fed-float16.npy")
    if not fed.exists():
        _feed(images, 1.0, np.float16)
    folders = tmp_path / "scores", tmp_path / "dumps", tmp_path / "steps"
    said = call(
        *("emulate", loadable, "--input", fed, "--configtarget", target),
        *("--output", folders[0], "--rawdump", folders[1], "--steps", folders[2]),
    )
    assert f"output far: {folders[0] / 'far.npy'}" in said
    assert sorted(path.name for path in folders[0].iterdir()) == ["far.npy", "near.npy"]
    assert sorted(path.name for path in folders[1].iterdir()) == ["far.dimg", "near.dimg"]
    expected = Reference(NETWORK).run(images)
    written = [np.load(path) for path in folders[2].glob("op*.npy")]
    for one in outputs:
        values = np.load(folders[0] / f"{one['name']}.npy")
        assert correlation(values * np.float32(one["scale"]), expected[one["name"]]) > 0.99
        dump = read_dimg(folders[1] / f"{one['name']}.dimg", shape=(8, 8, 8), dtype=values.dtype)
        # A dump of fp16 has six digits, which are enough to tell all of its values apart.
        np.testing.assert_array_equal(dump, values[0])
        assert any(np.array_equal(step, values) for step in written)
    verified = [*MODEL, *table, "--images", "images.npy", "--configtarget", target]
    said = call("verify", loadable, *verified, "--report", report)
    assert "near: cosine" in said
    assert "far: cosine" in said
    assert "verdict: ok" in said
    swapped = _swapped(loadable)
    assert "wrong-output" in call("verify", swapped, *verified, "--report", report, status=4)
    assert "output 'near' is not near, it holds far" in call("verify", swapped, *verified, status=4)


@pytest.mark.parametrize(("name", "target"), [("nv-full-fp16", "nv_full"), ("nv-small-int8-perfilter", "nv_small")])
def test_two_outputs_of_nvidias_compiler(name: str, target: str, repository: Path, tmp_path: Path) -> None:
    """By the same commands; the loadables' README.md says how they were made."""
    data, network = repository / "tests" / "data" / "nvidia", two_heads()
    loadable, model = tmp_path / "two.nvdla", [tmp_path / "deploy.prototxt", tmp_path / "heads.caffemodel"]
    loadable.write_bytes(lzma.decompress((data / f"heads-{name}.nvdla.xz").read_bytes()))
    write_prototxt(network, model[0])
    write_caffemodel(network, model[1])
    scales = read_table(data / "heads.json").scales if "int8" in name else dict.fromkeys(("data", *HEADS), 1.0)
    pictures = np.random.default_rng(1).normal(0, 1, (4, 3, 16, 16)).astype(np.float32)
    fed = np.zeros((4, 4, 16, 16), np.int8 if "int8" in name else np.float16)
    fed[:, :3] = np.clip(np.rint(pictures / scales["data"]), -128, 127) if "int8" in name else pictures
    np.save(tmp_path / "fed.npy", fed)
    np.save(tmp_path / "pictures.npy", pictures)
    described = json.loads(call("inspect", loadable, "--json"))["outputs"]
    assert [(one["name"], one["shape"]) for one in described] == [(head, [1, 8, 8, 8]) for head in HEADS]
    places = ["--output", tmp_path / "scores", "--rawdump", tmp_path / "dumps"]
    call("emulate", loadable, "--input", tmp_path / "fed.npy", "--configtarget", target, *places)
    expected = Reference(network).run(pictures)
    for head in HEADS:
        values = np.load(tmp_path / "scores" / f"{head}.npy")
        assert correlation(values * np.float32(scales[head]), expected[head]) > 0.99
        dump = read_dimg(tmp_path / "dumps" / f"{head}.dimg", shape=(8, 8, 8), dtype=values.dtype)
        np.testing.assert_array_equal(dump, values[0])
    table = ["--calibtable", data / "heads.json"] if "int8" in name else []
    options = [*table, "--images", tmp_path / "pictures.npy", "--configtarget", target]
    said = call("verify", loadable, "--prototxt", model[0], "--caffemodel", model[1], *options)
    assert "verdict: ok" in said
    assert all(f"{head}: cosine" in said for head in HEADS)


def _swapped(path: Path) -> Path:
    """Write the loadable with each output called as the other."""
    content = read_loadable(path)
    names = dict(zip(HEADS, reversed(HEADS), strict=True))
    tensors = tuple(replace(one, name=names.get(one.name, one.name)) for one in content.tensors)
    swapped = path.with_name("swapped.nvdla")
    swapped.write_bytes(serialize_loadable(replace(content, tensors=tensors)))
    return swapped


def test_several_outputs_go_into_no_single_file(tmp_path: Path) -> None:
    """Said before anything is run or written."""
    run = ["emulate", "small.nvdla", "--input", "fed-int8.npy"]
    said = call(*run, "--output", tmp_path / "out.npy", status=2)
    assert said.count("\n") == 1
    assert "out.npy: the loadable has 2 outputs (near, far), which go into a file each" in said
    assert f"give a folder, such as {tmp_path / 'out'}" in said
    said = call(*run, "--output", tmp_path / "out", "--rawdump", tmp_path / "output.dimg", status=2)
    assert "--rawdump" in said
    assert "give a folder" in said
    assert list(tmp_path.iterdir()) == []


def test_one_output_goes_into_no_folder(tmp_path: Path) -> None:
    assert places_of(tmp_path / "any", ["prob"], "--output", ".npy") == [tmp_path / "any"]
    with pytest.raises(typer.BadParameter, match=r"is a folder, and the loadable has one output: give a file"):
        places_of(tmp_path, ["prob"], "--output", ".npy")


def test_names_become_names_of_files() -> None:
    """No name leads out of the folder, hides a file or overwrites another's."""
    names = ["/head/Conv_output_0", "../x", "", "..", "a b", "a_b", "A_B", "3x3-ü"]
    assert file_names(names) == ["_head_Conv_output_0", "_._x", "_", "_.", "a_b", "a_b-5", "A_B-6", "3x3-_"]


def test_the_registers_of_several_outputs_are_refused(tmp_path: Path) -> None:
    """A register program says what is left of one."""
    said = call("trace", "small.nvdla", "--image", "fed-int8.npy", "--output", tmp_path / "trace", status=2)
    assert "2 outputs (near, far), expected one" in said
    assert "--cut-at" in said
