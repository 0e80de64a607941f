"""The shipped LeNet-5: its structure, and what it scores on images that it was never trained on."""

from pathlib import Path

import numpy as np
import pytest

from nvdla_quant.images.datasets import IdxRecord, open_dataset
from nvdla_quant.images.preprocess import Preprocessing, normalise
from nvdla_quant.images.selection import ImageBundle, gather
from nvdla_quant.network.caffe import read_network
from nvdla_quant.network.graph import Network
from nvdla_quant.reference import scores

PREPROCESSING = Preprocessing("gray", scale=1 / 256)


@pytest.fixture(scope="module")
def lenet(repository: Path) -> Network:
    folder = repository / "resources" / "lenet-mnist"
    return read_network(folder / "deploy.prototxt", folder / "lenet.caffemodel")


@pytest.fixture(scope="module")
def mnist(repository: Path) -> ImageBundle:
    folder = repository / "resources" / "mnist"
    dataset = open_dataset(IdxRecord(folder / "images-idx3-ubyte.gz", folder / "labels-idx1-ubyte.gz"))
    return gather(dataset, np.arange(len(dataset)), PREPROCESSING, (1, 28, 28), {})


def test_structure_is_caffes_lenet(lenet: Network) -> None:
    """Layers and shapes of Caffe's examples/mnist/lenet.prototxt."""
    assert [(tensor.name, tensor.shape) for tensor in lenet.inputs] == [("data", (1, 28, 28))]
    assert [(layer.name, layer.kind, lenet.tensors[layer.name].chw) for layer in lenet.layers] == [
        ("conv1", "Convolution", (20, 24, 24)),
        ("pool1", "Pooling", (20, 12, 12)),
        ("conv2", "Convolution", (50, 8, 8)),
        ("pool2", "Pooling", (50, 4, 4)),
        ("ip1", "InnerProduct", (500, 1, 1)),
        ("relu1", "ReLU", (500, 1, 1)),
        ("ip2", "InnerProduct", (10, 1, 1)),
        ("prob", "Softmax", (10, 1, 1)),
    ]
    assert lenet.tensors["relu1"].blob == "ip1"  # in place


def test_accuracy_is_the_one_that_was_measured(lenet: Network, mnist: ImageBundle) -> None:
    """4,956 of 5,000 by PyTorch when it was trained (training/README.md); a tie in the last bits may move one image."""
    predicted = scores(lenet, normalise(mnist.pixels, PREPROCESSING)).argmax(1)
    assert abs(int((predicted == mnist.labels).sum()) - 4956) <= 1


def test_opencvs_caffe_importer_agrees(repository: Path, lenet: Network, mnist: ImageBundle) -> None:
    cv2 = pytest.importorskip("cv2")
    folder = repository / "resources" / "lenet-mnist"
    network = cv2.dnn.readNetFromCaffe(str(folder / "deploy.prototxt"), str(folder / "lenet.caffemodel"))
    inputs = normalise(mnist.pixels[:200], PREPROCESSING)
    network.setInput(inputs)
    np.testing.assert_allclose(scores(lenet, inputs), network.forward().reshape(200, 10), atol=2e-5)
