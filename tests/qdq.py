"""Small quantized ONNX graphs, as the exporters write them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
INTEGERS = {"int8": TensorProto.INT8, "uint8": TensorProto.UINT8}


@dataclass
class Graph:
    """Nodes and constants, by small steps; each step returns the name of what it makes."""

    opset: int = 17
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, name: str, array: Any, kind: Any = np.float32) -> str:
        """Add an initialiser."""
        self.constants.append(numpy_helper.from_array(np.asarray(array, kind), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node."""
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=f"n_{output}", **attributes))
        return output

    def pair(self, name: str, scale: float, zero: int = 0, kind: str = "int8", **more: Any) -> str:
        """Add a QuantizeLinear and a DequantizeLinear of an activation, or of float weights."""
        shared = [self.constant(f"{name}_s", scale), self.constant(f"{name}_z", np.full(np.shape(scale), zero), kind)]
        self.node("QuantizeLinear", [name, *shared], f"{name}_q", **more)
        return self.node("DequantizeLinear", [f"{name}_q", *shared], f"{name}_dq", **more)

    def stored(
        self, name: str, integers: Any, scale: Any, kind: str = "int8", zero: int | None = None, **more: Any
    ) -> str:
        """Add integers that are stored, and their DequantizeLinear."""
        inputs = [self.constant(f"{name}_q", integers, kind), self.constant(f"{name}_s", scale)]
        if zero is not None:
            inputs.append(self.constant(f"{name}_z", np.full(np.shape(scale), zero), kind))
        return self.node("DequantizeLinear", inputs, name, **more)

    def model(self, shape: Sequence[int], output: str, rank: int = 2) -> onnx.ModelProto:
        """Return the model, checked; its output has so many axes."""
        graph = helper.make_graph(
            self.nodes,
            "small",
            [helper.make_tensor_value_info("data", FLOAT, ["n", *shape])],
            [helper.make_tensor_value_info(output, FLOAT, [f"axis{i}" for i in range(rank)])],
            self.constants,
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=min(10, onnx.IR_VERSION))
        onnx.checker.check_model(model)
        return model


def integers(seed: int, *shape: int) -> NDArray[np.int8]:
    """Return weights of int8, each output's largest 127."""
    found = np.random.default_rng(seed).integers(-127, 128, shape)
    found.reshape(shape[0], -1)[:, 0] = 127
    return found.astype(np.int8)


STEPS = integers(0, 4, 1, 3, 3)
SCALES = np.array([0.01, 0.003, 0.02, 0.0007], np.float32)
BIAS = np.array([40, -300, 0, 9000], np.int32)
INPUT_SCALE, ACTIVATION_SCALE, SCORE_SCALE = 1 / 64, 1 / 16, 1 / 8


def static(symmetric: bool = True, kind: str = "int8", opset: int = 17) -> onnx.ModelProto:
    """As onnxruntime writes: integers stored, all activations in pairs; without symmetry no ReLU is left."""
    g = Graph(opset)
    zero = 0 if symmetric else {"int8": -128, "uint8": 0}[kind]
    data = g.pair("data", INPUT_SCALE, 0 if symmetric else zero + 100, kind)
    weights = g.stored("w", STEPS, SCALES, zero=0, axis=0)
    bias = g.stored("b", BIAS, SCALES * np.float32(INPUT_SCALE), "int32", axis=0)
    if symmetric:
        g.node("Conv", [data, weights, bias], "sum", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        g.node("Relu", [g.pair("sum", ACTIVATION_SCALE)], "act")
    else:
        g.node("Conv", [data, weights, bias], "act", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    pooled = g.node(
        "MaxPool", [g.pair("act", ACTIVATION_SCALE, zero, kind)], "pool", kernel_shape=[2, 2], strides=[2, 2]
    )
    flat = g.node("Flatten", [g.pair(pooled, ACTIVATION_SCALE, zero, kind)], "flat")
    weights = g.stored("fw", integers(1, 10, 4 * 4 * 4), np.float32(0.004), zero=0)
    g.node("Gemm", [flat, weights], "scores_in", transB=1)
    g.node("Identity", [g.pair("scores_in", SCORE_SCALE, 0 if symmetric else zero + 77, kind)], "scores")
    return g.model((1, 8, 8), "scores")
