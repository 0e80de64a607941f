"""QuantizeLinear and DequantizeLinear that could not be taken out of the graph."""

from nvdla_quant.errors import UnsupportedError
from nvdla_quant.network.onnx.values.nodes import Node
from nvdla_quant.network.onnx.values.quantized import REFUSED
from nvdla_quant.network.onnx.values.reading import Reading


def refuse(node: Node, reading: Reading) -> None:
    """Tell why a node is still there; of a pair, its first half says so."""
    reason = node.node.meta.get(REFUSED)
    if reason is not None:
        raise UnsupportedError(reason)
    reading.show(node.output, reading.view(node.input()))
