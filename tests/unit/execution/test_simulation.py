"""The int8 simulation: rounding by hand, and TensorRT's own int8 accuracy."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nvdla_quant.errors import NetworkError, TableError
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.execution.simulated import Simulation, quantize_weights, quantized_tensors, weight_steps
from nvdla_quant.hardware.targets import QuantizationMode
from nvdla_quant.network.caffe.reader import read_network
from nvdla_quant.network.graph import Convolution, Deconvolution, Flatten, InnerProduct, Layer, Network, ReLU, Tensor
from nvdla_quant.network.shapes import assemble
from nvdla_quant.table.cache import read_cache
from nvdla_quant.table.consistency import unify
from nvdla_quant.table.naming import match
from nvdla_quant.table.table import CalibrationTable

Array = NDArray[np.float32]


def weights(*numbers: float) -> Array:
    return np.array(numbers, np.float32)


@pytest.fixture
def network() -> Network:
    """Two 1 x 1 filters, ReLU, Flatten and a sum of both channels."""
    return assemble(
        "net",
        [Tensor("data", (1, 1, 1), "data")],
        [
            Layer("c", Convolution(weights(1.0, -0.5).reshape(2, 1, 1, 1), None), ("data",)),
            Layer("r", ReLU(), ("c",)),
            Layer("flat", Flatten(), ("r",)),
            Layer("f", InnerProduct(weights(1.0, 1.0).reshape(1, 2), weights(0.001)), ("flat",)),
        ],
    )


TABLE = CalibrationTable({"data": 0.1, "c": 100.0, "r": 0.25, "f": 0.5})


def run(network: Network, table: CalibrationTable, value: float, *tensors: str) -> list[list[float]]:
    simulation = Simulation(network, table, QuantizationMode.PER_FILTER, tensors or None)
    result = simulation.run(np.full((1, 1, 1, 1), value, np.float32))
    return [array.reshape(-1).tolist() for array in result.values()]


def test_rounds_where_the_hardware_writes(network: Network) -> None:
    assert quantized_tensors(network) == ("data", "r", "f")
    # 1.04 is 10 steps of 0.1 = 1.0; r = (1.0, 0), 4 steps of 0.25; f = 1.001, 2 steps of 0.5. c is fused: no rounding.
    assert run(network, TABLE, 1.04, "c", "r", "f") == [[1.0, -0.5], [1.0, 0.0], [1.0]]
    # -1.04: c = (-1.0, 0.5), r = (0, 0.5), f = 0.501, 1 step.
    assert run(network, TABLE, -1.04) == [[0.5]]


def test_saturates_at_127_steps_and_minus_128(network: Network) -> None:
    assert run(network, replace(TABLE, scales={**TABLE.scales, "r": 1.0}), 1000.0, "c")[0][0] == pytest.approx(12.7)
    assert run(network, TABLE, -1000.0, "c")[0][0] == pytest.approx(-12.8)


def test_weights_are_rounded_a_filter_or_a_kernel() -> None:
    filters = weights(1.27, 0.004, 0.0127, 0.00004).reshape(2, 2, 1, 1)
    assert weight_steps(filters, QuantizationMode.PER_FILTER).reshape(-1) == pytest.approx([0.01, 0.0001])
    assert weight_steps(filters, QuantizationMode.PER_KERNEL).reshape(-1) == pytest.approx([0.01])
    assert weight_steps(filters, QuantizationMode.PER_FILTER, 1).reshape(-1) == pytest.approx([0.01, 0.004 / 127])
    assert weight_steps(np.zeros((1, 1), np.float32), QuantizationMode.PER_FILTER).tolist() == [[1.0]]
    network = assemble(
        "net",
        [Tensor("data", (2, 1, 1), "data")],
        [Layer("c", Convolution(filters, None), ("data",)), Layer("d", Deconvolution(filters, None), ("c",))],
    )
    rounded = {
        mode: [layer.operation.weights.reshape(-1) for layer in quantize_weights(network, mode).layers]  # type: ignore[union-attr]
        for mode in QuantizationMode
    }
    assert rounded[QuantizationMode.PER_FILTER][0] == pytest.approx([1.27, 0.0, 0.0127, 0.0], abs=1e-8)
    assert rounded[QuantizationMode.PER_KERNEL][0] == pytest.approx([1.27, 0.0, 0.01, 0.0], abs=1e-8)
    # A deconvolution's filters stand in its second axis.
    assert rounded[QuantizationMode.PER_FILTER][1] == pytest.approx([1.27, 0.004, 0.01, 0.004 / 127], abs=1e-8)


def test_without_a_mode_weights_stay_as_they_are(network: Network) -> None:
    """Only what is asked for is rounded: the input alone, and all else is fp32."""
    images = np.full((1, *network.only_input.shape), 1.04, np.float32)
    made = Simulation(network, TABLE, None, ["c"], rounded=["data"]).run(images)["c"]
    exact = Reference(network, ["c"]).run(np.full_like(images, 1.0))["c"]
    np.testing.assert_allclose(made, exact, rtol=1e-6)


def test_refuses_an_incomplete_table_and_other_images(network: Network) -> None:
    with pytest.raises(TableError, match="no entry for 'f'"):
        Simulation(network, CalibrationTable({"data": 1.0, "c": 1.0, "r": 1.0}), QuantizationMode.PER_FILTER)
    with pytest.raises(NetworkError, match=r"shape \(1, 3, 1, 1\)"):
        Simulation(network, TABLE, QuantizationMode.PER_FILTER).run(np.zeros((1, 3, 1, 1), np.float32))
    with pytest.raises(NetworkError, match="no layer writes 'x'"):
        Simulation(network, TABLE, QuantizationMode.PER_FILTER, ["x"])


def test_no_images_give_no_results(network: Network) -> None:
    result = Simulation(network, TABLE, QuantizationMode.PER_FILTER).run(np.zeros((0, 1, 1, 1), np.float32))
    assert result["f"].shape == (0, 1)


def test_golden_accuracy_is_tensorrts(shared: Path) -> None:
    """TensorRT ran the same cache in int8 on a GPU, with 597 images: one image is 0.17 points."""
    folder = shared / "golden" / "tensorrt" / "resnet-digits"
    network = read_network(folder / "deploy.prototxt", folder / "model.caffemodel")
    table, _ = unify(network, match(read_cache(folder / "entropy2.batch64.cache"), network)[0])
    images = np.load(folder / "images.npz")
    scores = Simulation(network, table, QuantizationMode.PER_FILTER, ["fc10"]).run(images["test"])["fc10"]
    accuracy = np.mean(scores.reshape(len(scores), -1).argmax(axis=1) == images["labels"])
    theirs = json.loads((folder / "tensorrt-results.json").read_text())["int8_entropy2"]["accuracy"]
    assert accuracy == pytest.approx(theirs, abs=0.01)
