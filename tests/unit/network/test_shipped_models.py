"""The networks that ship: their structure, and what they score on images that they were never trained on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from nvdla_quant.execution.fp32 import scores
from nvdla_quant.images.datasets import IdxRecord, open_dataset
from nvdla_quant.images.preprocess import Preprocessing, normalise
from nvdla_quant.images.selection import ImageBundle, gather
from nvdla_quant.network.caffe.reader import read_network
from nvdla_quant.network.graph import Network


@dataclass(frozen=True)
class Shipped:
    """A network, its test images, and how many of them training/README.md says are classified correctly."""

    network: Network
    files: tuple[Path, Path]
    images: ImageBundle
    preprocessing: Preprocessing
    correct: int


def shipped(folder: Path, model: str, images: str, preprocessing: Preprocessing, correct: int) -> Shipped:
    (caffemodel,) = (folder / model).glob("*.caffemodel")
    files = folder / model / "deploy.prototxt", caffemodel
    files_of_images = (next(folder.glob(f"{images}{kind}-ubyte.*")) for kind in ("images-idx3", "labels-idx1"))
    dataset = open_dataset(IdxRecord(*files_of_images))
    bundle = gather(dataset, np.arange(len(dataset)), preprocessing, (1, 28, 28), {})
    return Shipped(read_network(*files), files, bundle, preprocessing, correct)


@pytest.fixture(scope="module")
def lenet(repository: Path) -> Shipped:
    return shipped(repository / "resources", "lenet-mnist", "mnist/", Preprocessing("gray", scale=1 / 256), 4956)


@pytest.fixture(scope="module")
def resnet20(repository: Path) -> Shipped:
    preprocessing = Preprocessing("gray", mean=(73,), scale=0.01)
    return shipped(repository / "resources", "resnet20-fashion-mnist", "fashion-mnist/t10k-", preprocessing, 9410)


@pytest.fixture(params=["lenet", "resnet20"])
def any_model(request: pytest.FixtureRequest) -> Shipped:
    model: Shipped = request.getfixturevalue(request.param)
    return model


def test_structure_is_caffes_lenet(lenet: Shipped) -> None:
    """Layers and shapes of Caffe's examples/mnist/lenet.prototxt."""
    network = lenet.network
    assert [(tensor.name, tensor.shape) for tensor in network.inputs] == [("data", (1, 28, 28))]
    assert [(layer.name, layer.kind, network.tensors[layer.name].chw) for layer in network.layers] == [
        ("conv1", "Convolution", (20, 24, 24)),
        ("pool1", "Pooling", (20, 12, 12)),
        ("conv2", "Convolution", (50, 8, 8)),
        ("pool2", "Pooling", (50, 4, 4)),
        ("ip1", "InnerProduct", (500, 1, 1)),
        ("relu1", "ReLU", (500, 1, 1)),
        ("ip2", "InnerProduct", (10, 1, 1)),
        ("prob", "Softmax", (10, 1, 1)),
    ]
    assert network.tensors["relu1"].blob == "ip1"  # in place


def test_structure_is_that_of_resnet20(resnet20: Shipped) -> None:
    """He et al. 2016, section 4.2: 19 convolutions of 3x3 in 9 blocks, and two 1x1 shortcuts; 270 thousand weights."""
    layers = resnet20.network.layers
    kinds = [layer.kind for layer in layers]
    assert kinds.count("Convolution") == kinds.count("BatchNorm") == kinds.count("Scale") == 19 + 2
    assert kinds.count("Eltwise") == 9
    weights = sum(layer.operation.weights.size for layer in layers if hasattr(layer.operation, "weights"))
    assert 265_000 < weights < 275_000
    tensors = resnet20.network.tensors
    assert tensors["res2a_branch2a_relu"].blob == tensors["res2a_branch2a"].blob  # in place, as in Caffe's ResNets


def test_accuracy_is_the_one_that_was_measured(any_model: Shipped) -> None:
    """As PyTorch counted when it was trained (training/README.md); a tie in the last bits may move one image."""
    predicted = scores(any_model.network, normalise(any_model.images.pixels, any_model.preprocessing)).argmax(1)
    assert abs(int((predicted == any_model.images.labels).sum()) - any_model.correct) <= 1


def test_opencvs_caffe_importer_agrees(any_model: Shipped) -> None:
    cv2 = pytest.importorskip("cv2")
    network = cv2.dnn.readNetFromCaffe(*map(str, any_model.files))
    inputs = normalise(any_model.images.pixels[:200], any_model.preprocessing)
    network.setInput(inputs)
    np.testing.assert_allclose(scores(any_model.network, inputs), network.forward().reshape(200, 10), atol=2e-5)
