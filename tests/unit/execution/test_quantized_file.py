"""A quantized file as onnxruntime runs it."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from nvdla_quant.errors import NetworkError
from nvdla_quant.execution.quantized_file import run_file
from nvdla_quant.network.graph import Tensor
from tests.qdq import SCORE_SCALE, Graph, static

IMAGES = np.random.default_rng(0).uniform(-0.5, 0.5, (70, 1, 8, 8)).astype(np.float32)
READS = Tensor("data", (1, 8, 8), "data")


def saved(model: onnx.ModelProto, folder: Path, batch: int | None = None) -> Path:
    if batch is not None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


@pytest.mark.parametrize("batch", [None, 1, 32])
def test_any_batch(batch: int | None, tmp_path: Path) -> None:
    """Of a fixed one that does not divide the images, the last is filled up."""
    options = onnxruntime.SessionOptions()
    # In float32, which clips no sum, whatever the processor.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(static().SerializeToString(), options, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"data": IMAGES})
    done: list[int] = []
    progress = lambda count, _: done.append(count)  # noqa: E731
    found = run_file(saved(static(), tmp_path, batch), IMAGES, READS, progress=progress)
    assert np.abs(found - expected).max() <= SCORE_SCALE  # Sums in another order may be rounded to the next step.
    assert done[-1] == 70
    assert len(done) == {None: 2, 1: 70, 32: 3}[batch]


def test_channels_last(tmp_path: Path) -> None:
    g = Graph()
    g.node("Transpose", ["data"], "first", perm=[0, 3, 1, 2])
    g.node("Relu", [g.pair("first", 1 / 64)], "out")
    images = np.random.default_rng(1).uniform(0, 1, (3, 2, 4, 5)).astype(np.float32)
    path = saved(g.model((4, 5, 2), "out", 4), tmp_path)
    found = run_file(path, images, Tensor("data", (2, 4, 5), "data"))
    assert np.abs(found - images.reshape(3, -1)).max() <= 1 / 128


def test_what_cannot_be_run(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"no model")
    with pytest.raises(NetworkError, match=r"net\.onnx: onnxruntime does not run it: "):
        run_file(tmp_path / "net.onnx", IMAGES, READS)
    model = static()
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    with pytest.raises(NetworkError):
        run_file(saved(model, tmp_path), IMAGES, READS)


def test_up_to_a_value(tmp_path: Path) -> None:
    """What is behind may be nothing that onnxruntime knows."""
    whole = static()
    path = saved(static(), tmp_path)
    expected = run_file(path, IMAGES[:4], READS)
    whole.graph.node.append(
        onnx.helper.make_node("Decode", [whole.graph.output[0].name], ["decoded"], domain="of.nobody")
    )
    whole.graph.output[0].name, end = "decoded", whole.graph.output[0].name
    path = saved(whole, tmp_path)
    with pytest.raises(NetworkError, match="onnxruntime does not run it"):
        run_file(path, IMAGES[:4], READS)
    np.testing.assert_array_equal(run_file(path, IMAGES[:4], READS, [end]), expected)
