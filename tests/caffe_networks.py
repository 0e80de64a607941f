"""Small Caffe networks with random weights, for the tests of readers, writers and the fp32 reference."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from nvdla_quant.network.caffe.reader import read_structure
from nvdla_quant.network.caffe.writer import write_caffemodel
from nvdla_quant.network.graph import Network, Operation


def layer(name: str, kind: str, bottoms: str, parameters: str = "", top: str | None = None) -> str:
    """One layer of a prototxt; `bottoms` are separated by spaces."""
    reads = "".join(f'bottom: "{bottom}" ' for bottom in bottoms.split())
    return f'layer {{ name: "{name}" type: "{kind}" {reads}top: "{top or name}" {parameters} }}\n'


def prototxt(*layers: str, shape: tuple[int, ...] = (1, 6, 11, 9)) -> str:
    """A prototxt with one Input `data`."""
    dims = " ".join(f"dim: {size}" for size in shape)
    head = f'name: "net"\nlayer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }}\n'
    return head + "".join(layers)


def randomized(network: Network, seed: int = 0) -> Network:
    """The network with random weights; variances are positive."""
    rng = np.random.default_rng(seed)

    def fill(operation: Operation) -> Operation:
        arrays = {f.name: getattr(operation, f.name) for f in fields(operation)}
        arrays = {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}
        values = {name: rng.normal(0, 0.5, array.shape).astype(np.float32) for name, array in arrays.items()}
        if "variance" in values:
            values["variance"] = np.abs(values["variance"]) + np.float32(0.1)
        return replace(operation, **values)

    layers = tuple(replace(layer, operation=fill(layer.operation)) for layer in network.layers)
    return replace(network, layers=layers)


def write_random(folder: Path, text: str, seed: int = 0) -> tuple[Path, Path]:
    """Paths of the prototxt and of a caffemodel with random weights for it."""
    structure, weights = folder / "deploy.prototxt", folder / "model.caffemodel"
    structure.write_text(text)
    write_caffemodel(randomized(read_structure(structure), seed), weights)
    return structure, weights


def values(item: Operation) -> dict[str, object]:
    """Fields of an operation in a form that compares by value, weights by their bytes."""
    result = {field.name: getattr(item, field.name) for field in fields(item)}
    return {
        name: (value.shape, value.dtype, value.tobytes()) if isinstance(value, np.ndarray) else value
        for name, value in result.items()
    }


def assert_equal(got: Network, expected: Network) -> None:
    assert (got.name, got.inputs, dict(got.tensors)) == (expected.name, expected.inputs, dict(expected.tensors))
    assert [(x.name, x.kind, x.inputs) for x in got.layers] == [(x.name, x.kind, x.inputs) for x in expected.layers]
    for ours, theirs in zip(got.layers, expected.layers, strict=True):
        assert values(ours.operation) == values(theirs.operation), ours.name


ALL_OPERATIONS = prototxt(
    layer(
        "conv", "Convolution", "data", "convolution_param { num_output: 8 kernel_size: 3 pad: 1 stride: 2 group: 2 }"
    ),
    layer("bn", "BatchNorm", "conv", "batch_norm_param { eps: 0.001 }", top="conv"),
    layer("scale", "Scale", "conv", "scale_param { bias_term: true }", top="conv"),
    layer("relu", "ReLU", "conv", "relu_param { negative_slope: 0.1 }", top="conv"),
    layer(
        "up", "Deconvolution", "conv", "convolution_param { num_output: 8 kernel_size: 2 stride: 2 bias_term: false }"
    ),
    layer("slope", "PReLU", "up"),
    layer("one_slope", "PReLU", "up", "prelu_param { channel_shared: true }"),
    layer("sum", "Eltwise", "slope one_slope", "eltwise_param { coeff: 1 coeff: -0.5 }"),
    layer("sigmoid", "Sigmoid", "up"),
    layer("tanh", "TanH", "up"),
    layer("product", "Eltwise", "sigmoid tanh sum", "eltwise_param { operation: PROD }"),
    layer("largest", "Eltwise", "product tanh", "eltwise_param { operation: MAX }"),
    layer("power", "Power", "largest", "power_param { power: 2 scale: 0.5 shift: 1.5 }"),
    layer("norm", "LRN", "power", "lrn_param { local_size: 3 alpha: 0.1 }"),
    layer("max", "Pooling", "norm", "pooling_param { kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 1 }"),
    layer("mean", "Pooling", "max", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }"),
    layer("cut", "Crop", "norm mean", "crop_param { offset: 1 offset: 2 }"),
    layer("mixed", "Concat", "mean cut"),
    layer("dropped", "Dropout", "mixed", top="mixed"),
    layer("flat", "Flatten", "mixed"),
    layer("view", "Reshape", "flat", "reshape_param { shape { dim: 0 dim: 16 dim: -1 dim: 1 } }"),
    layer("logits", "InnerProduct", "view", "inner_product_param { num_output: 10 }"),
    layer("prob", "Softmax", "logits"),
)
"""Every operation of the graph, most forms of their parameters, and chains of in-place layers."""
