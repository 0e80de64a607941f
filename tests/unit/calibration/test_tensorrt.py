"""The TensorRT program against a module that behaves as TensorRT at Python level; TensorRT itself did not run here."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml

from nvdla_quant.calibration.tensorrt import CALIBRATORS, Images, import_tensorrt, keep_named
from nvdla_quant.calibration.tensorrt_job import write_job
from nvdla_quant.errors import ToolError
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.images.preprocess import Preprocessing, normalise
from nvdla_quant.images.selection import ImageBundle, write_images
from nvdla_quant.jobs import provenance
from nvdla_quant.network.caffe.reader import read_network, read_structure
from nvdla_quant.network.caffe.writer import write_caffemodel, write_prototxt
from nvdla_quant.network.graph import Flatten, InnerProduct, Layer, Pooling, Tensor
from nvdla_quant.network.shapes import assemble
from nvdla_quant.table.cache import read_cache
from nvdla_quant.table.naming import match, tensor_names
from tests.fakes import FAKES
from tests.sweeps import tiny_network

MODULE = "nvdla_quant.calibration.tensorrt"
PREPROCESSING = Preprocessing("gray", mean=(33.0,), scale=1 / 64)
ON_THE_GPU = {"tensorrt", "pycuda", "cuda", "cupy", "torch"}


class Bench:
    """A tiny network and images laid ready for TensorRT, and a fake one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.network = folder, tiny_network(0)
        self.prototxt, self.caffemodel = folder / "my net $HOME's.prototxt", folder / "-weights"
        write_prototxt(self.network, self.prototxt)
        write_caffemodel(self.network, self.caffemodel)
        write_job(self.network, PREPROCESSING, folder / "job.json", folder / "model.onnx")
        self.pixels = np.random.default_rng(0).integers(0, 256, (12, 1, 8, 8)).astype(np.uint8)
        self.cache, self.scores = folder / "calibration.cache", folder / "scores.npz"
        for name, part in (("a.npz", slice(0, 8)), ("b.npz", slice(8, 12))):
            pixels = self.pixels[part]
            count = np.arange(len(pixels))
            write_images(folder / name, ImageBundle(pixels, count % 6, count, tuple(map(str, count)), {}))

    def run(
        self, command: str, *arguments: str, version: str = "8.5.3.1", fakes: bool = True, caffe: bool = True
    ) -> Any:
        paths = [str(FAKES.parents[1]), *([str(FAKES / "gpu")] if fakes else [])]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(paths)}
        environment |= {"FAKE_TENSORRT": version, "FAKE_JOB": str(self.folder / "job.json")}
        files = [f"--job={self.folder / 'job.json'}"]
        files += [f"--prototxt={self.prototxt}", f"--caffemodel={self.caffemodel}"] if caffe else []
        line = [sys.executable, "-m", MODULE, command, *files, f"--cache={self.cache}", *arguments]
        return subprocess.run(line, env=environment, cwd=self.folder, capture_output=True, text=True, check=False)

    def calibrate(self, *arguments: str, batch: int = 4, **how: Any) -> Any:
        options = [f"--calibration={self.folder / 'a.npz'}", f"--batch-size={batch}", *arguments]
        return self.run("calibrate", *options, **how)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


# ---- what the container has


def test_the_program_is_python_3_8_and_needs_numpy_alone() -> None:
    """Its own modules too; what is on the GPU machine is imported where it is used, and only there."""
    for path in provenance.source_files(MODULE):
        tree = ast.parse(path.read_text(), feature_version=(3, 8))
        for node in tree.body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                root = str(name).split(".")[0]
                assert root in {"nvdla_quant", "numpy"} | set(sys.stdlib_module_names), f"{path.name}: {name}"
        everywhere = {
            str(module).split(".")[0]
            for node in ast.walk(tree)
            for module in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert everywhere <= {"nvdla_quant", "numpy"} | ON_THE_GPU | set(sys.stdlib_module_names), path.name


def test_the_program_uses_no_method_that_python_3_8_lacks() -> None:
    """removeprefix, removesuffix (3.9), bit_count (3.10), dict | dict, zip(strict=) (3.10), file_digest (3.11)."""
    late = {"removeprefix", "removesuffix", "bit_count", "file_digest", "pairwise", "hardlink_to", "readlink"}
    for path in provenance.source_files(MODULE):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            assert not (isinstance(node, ast.Attribute) and node.attr in late), f"{path.name}:{node.lineno}"
            assert not (isinstance(node, ast.keyword) and node.arg == "strict"), f"{path.name}:{node.value.lineno}"
            assert not isinstance(node, ast.Match), f"{path.name}:{node.lineno}"
        has_annotations = any(isinstance(node, ast.arg) and node.annotation for node in ast.walk(tree))
        assert not has_annotations or "from __future__ import annotations" in path.read_text(), path.name


def test_the_environments_pin_what_was_measured(repository: Path) -> None:
    conda = yaml.safe_load((repository / "envs" / "tensorrt-8.5.yaml").read_text())
    assert conda["dependencies"][:3] == ["python =3.10", "numpy =1.26.4", "pycuda =2022.2.2"]
    assert conda["dependencies"][-1] == {"pip": ["tensorrt==8.5.3.1"]}
    lines = (repository / "envs" / "tensorrt-8.5.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "numpy==1.26.4",
        "pycuda==2022.2.2",
        "tensorrt==8.5.3.1",
    ]


# ---- the job


def test_input_values_are_the_workflow_s_own(bench: Bench) -> None:
    job = json.loads((bench.folder / "job.json").read_text())
    images = Images([str(bench.folder / "a.npz"), str(bench.folder / "b.npz")], np.array(job["values"]), 5)
    batches = list(images.batches())
    assert [(batch.shape, batch.dtype, count) for batch, count in batches] == [
        *[((5, 1, 8, 8), np.float32, 5)] * 2,
        ((5, 1, 8, 8), np.float32, 2),
    ]
    everything = np.concatenate([batch[:count] for batch, count in batches])
    assert np.array_equal(everything, normalise(bench.pixels, PREPROCESSING))
    assert not batches[-1][0][2:].any()
    assert (job["input"], job["shape"], job["output"], job["classes"]) == ("data", [1, 8, 8], "prob", 6)


def test_images_without_labels_calibrate_and_do_not_test(bench: Bench) -> None:
    labelled, count = bench.folder / "a.npz", np.arange(8)
    assert (cache := bench.calibrate()).returncode == 0, cache.stderr
    content = bench.cache.read_bytes()
    bare = ImageBundle(bench.pixels[:8], None, count, tuple(map(str, count)), {"labelled": False})
    write_images(labelled, bare)
    assert bench.calibrate().returncode == 0
    assert bench.cache.read_bytes() == content
    done = bench.run("run", "--precision=fp16", "--batch-size=4", f"--scores={bench.scores}", "--images", str(labelled))
    assert done.returncode != 0
    assert "tensorrt: test images without labels, expected the class of each" in done.stderr
    assert not bench.scores.exists()


def test_the_onnx_model_computes_the_same_under_the_cache_s_names(bench: Bench) -> None:
    session = onnxruntime.InferenceSession(bench.folder / "model.onnx")
    inputs = normalise(bench.pixels, PREPROCESSING)
    (found,) = session.run(None, {"data": inputs})
    (expected,) = Reference(bench.network).run(inputs).values()
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-6)
    written = [name for node in onnx.load(bench.folder / "model.onnx").graph.node for name in node.output]
    named = [name for name in written if ":" not in name]
    assert named == ["(Unnamed Layer* 0) [Convolution]_output", "conv1", "pool1", "ip1", "prob"], "relu1 writes conv1"


def test_every_value_of_the_onnx_model_has_a_name_of_its_own(tmp_path: Path) -> None:
    """The Caffe parser drops a Flatten, and names the tensor before it after both blobs, the last in byte order."""
    layers = [Layer("pool", Pooling("average", (8, 8)), ("data",)), Layer("view", Flatten(), ("pool",))]
    layers.append(Layer("fc", InnerProduct(np.ones((6, 1), np.float32), None), ("view",)))
    write_job(
        assemble("net", [Tensor("data", (1, 8, 8), "data")], layers),
        PREPROCESSING,
        tmp_path / "job.json",
        tmp_path / "model.onnx",
    )
    assert json.loads((tmp_path / "job.json").read_text())["names"] == ["data", "view", "fc"]
    onnx.checker.check_model(onnx.load(tmp_path / "model.onnx"), full_check=True)


@pytest.mark.parametrize("name", ["lenet-mnist", "resnet-digits", "lenet-digits"])
def test_names_and_order_are_those_of_real_caches(name: str, shared: Path, tmp_path: Path) -> None:
    """Caches that TensorRT 8.5.3.1 wrote through its Caffe parser."""
    folder = shared / "golden" / "tensorrt" / name
    network = read_network(folder / "deploy.prototxt", folder / "model.caffemodel")
    channels = "gray" if network.only_input.chw[0] == 1 else "bgr"
    write_job(network, Preprocessing(channels), tmp_path / "job.json", tmp_path / "model.onnx")
    names = json.loads((tmp_path / "job.json").read_text())["names"]
    for cache in sorted(folder.glob("*.cache")):
        entries = [entry for entry, _ in read_cache(cache).entries]
        if cache.name.startswith("entropy."):  # After fusion: a part of them.
            assert [entry for entry in names if entry in entries] == entries
        else:
            assert entries == names


# ---- calibration


@pytest.mark.parametrize(("method", "base"), CALIBRATORS.items())
def test_each_method_is_its_class_and_sees_all_images_once(bench: Bench, method: str, base: str) -> None:
    done = bench.calibrate(f"--method={method}", "--quantile=0.9999")
    assert done.returncode == 0, done.stderr
    cache = read_cache(bench.cache)
    kind = base.removeprefix("IInt8").replace("Calibrator", "Calibration")
    # The legacy calibrator writes its cutoff and quantile in place of a name.
    assert cache.header == ("0 3ff0000000000000 3fefff2e48e8a71e" if "legacy" in method else f"TRT-853-{kind}")
    assert [name for name, _ in cache.entries] == list(tensor_names(bench.network).values())
    mean = normalise(bench.pixels[:8], PREPROCESSING).mean(dtype=np.float64)
    assert list(cache.scales.values()) == [pytest.approx(mean, rel=1e-6)] * 6
    table, _ = match(cache, read_structure(bench.prototxt))
    assert set(table.scales) == {"data", "conv1", "relu1", "pool1", "ip1", "prob"}
    assert sorted(path.name for path in bench.folder.glob("*.part")) == []


@pytest.mark.parametrize("version", ["7.2.2.3", "8.6.1", "9.3.0", "10.3.0"])
def test_every_version_s_cache_has_the_network_s_entries_alone(bench: Bench, version: str) -> None:
    """The ONNX parser's own tensors are left out; the header stays as TensorRT wrote it."""
    done = bench.calibrate(version=version)
    assert done.returncode == 0, done.stderr
    cache = read_cache(bench.cache)
    assert cache.header == f"TRT-{''.join(version.split('.')[:3])}-EntropyCalibration2"
    assert [name for name, _ in cache.entries] == list(tensor_names(bench.network).values())
    assert match(cache, bench.network)[0].scales


@pytest.mark.parametrize("version", ["7.2.2.3", "8.5.3.1", "10.3.0"])
def test_an_onnx_model_goes_through_the_onnx_parser_of_every_version(bench: Bench, version: str) -> None:
    done = bench.calibrate(version=version, caffe=False)
    assert done.returncode == 0, done.stderr
    assert [name for name, _ in read_cache(bench.cache).entries] == list(tensor_names(bench.network).values())
    options = ["--precision=int8", "--batch-size=5", f"--scores={bench.scores}", "--images"]
    done = bench.run("run", *options, str(bench.folder / "a.npz"), version=version, caffe=False)
    assert done.returncode == 0, done.stderr
    assert str(np.load(bench.scores)["exactness"][0]) == f"TensorRT {version}, ONNX parser"


def test_one_of_caffe_s_files_is_refused(bench: Bench) -> None:
    done = bench.calibrate(f"--prototxt={bench.prototxt}", caffe=False)
    assert done.returncode == 2
    assert "one of --prototxt and --caffemodel is missing" in done.stderr


@pytest.mark.parametrize("method", ["mse", "cosine", "entropy"])
def test_methods_that_tensorrt_lacks_are_refused(bench: Bench, method: str) -> None:
    done = bench.calibrate(f"--method={method}")
    assert done.returncode == 2
    assert f"TensorRT has no calibrator '{method}', but tensorrt-entropy, tensorrt-entropy-1," in done.stderr
    assert "the others calibrate on the CPU" in done.stderr
    assert not bench.cache.exists()


def test_version_11_is_refused_by_name(bench: Bench) -> None:
    done = bench.calibrate(version="11.0.0")
    assert done.returncode == 2
    assert "version 11.0.0 has no INT8 calibrators any more" in done.stderr
    assert "the last version that calibrates is 10.x" in done.stderr
    assert not bench.cache.exists()


def test_an_interpreter_without_tensorrt_says_what_to_install(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    done = bench.calibrate(fakes=False)
    assert done.returncode == 2
    assert "has no module tensorrt" in done.stderr
    assert "backends.tensorrt.python" in done.stderr
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(ToolError, match=r"envs/tensorrt-8\.5\.yaml"):
        import_tensorrt()


def test_images_that_are_no_whole_batches_are_refused(bench: Bench) -> None:
    done = bench.calibrate(batch=5)
    assert done.returncode == 2
    assert "8 images in batches of 5: TensorRT calibrates with whole batches" in done.stderr


def test_what_a_killed_run_left_is_not_taken_for_a_cache(bench: Bench) -> None:
    (bench.folder / "calibration.cache.tensorrt").write_text("TRT-853-EntropyCalibration2\ndata: 3f800000\n")
    assert bench.calibrate().returncode == 0
    assert len(read_cache(bench.cache).entries) == 6


def test_entries_of_the_onnx_parser_are_told_by_name() -> None:
    content = b"TRT-1030-EntropyCalibration2\na: 3f800000\nblock: conv: 3f800000\na:flat: 3f800000\n"
    assert keep_named(content, ["block: conv", "a"]) == b"\n".join(content.split(b"\n")[:3]) + b"\n"


# ---- accuracy


@pytest.mark.parametrize("version", ["8.5.3.1", "10.3.0"])
def test_scores_come_in_the_order_of_the_images(bench: Bench, version: str) -> None:
    """The fake's class is a function of the image; 12 images in batches of 5, the last one half empty."""
    bench.calibrate(version=version)
    for precision in ("fp32", "fp16", "int8"):
        images = ["--images", str(bench.folder / "a.npz"), str(bench.folder / "b.npz")]
        options = [f"--precision={precision}", "--batch-size=5", f"--scores={bench.scores}"]
        done = bench.run("run", *options, *images, version=version)
        assert done.returncode == 0, done.stderr
        assert ("calibration cache taken" in done.stdout) is (precision == "int8")
        # TF32 is on by default; what is called fp32 is fp32.
        flags = {"fp32": "nothing", "fp16": "fp16 tf32", "int8": "int8 tf32"}[precision]
        assert f"fake tensorrt: built with {flags}\n" in done.stdout
        found = np.load(bench.scores)
        inputs = normalise(bench.pixels, PREPROCESSING).reshape(12, -1)
        expected = (inputs > inputs.mean(axis=1, keepdims=True)).sum(axis=1) % 6
        assert found["scores"].argmax(axis=1).tolist() == expected.tolist()
        assert found["labels"].tolist() == [*range(6), 0, 1, 0, 1, 2, 3]
        parser = "Caffe" if version.startswith("8.5") else "ONNX"
        assert str(found["exactness"][0]) == f"TensorRT {version}, {parser} parser"
