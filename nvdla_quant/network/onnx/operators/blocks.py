"""Operators that exchange pixels and channels.

Semantics are those of the ONNX operator specification (SpaceToDepth-1, 13; DepthToSpace-1, 11, 13).
"""

from nvdla_quant.errors import NetworkError
from nvdla_quant.network.moves import DepthToSpace, SpaceToDepth, inverted, onnx_order
from nvdla_quant.network.onnx.values.nodes import Node
from nvdla_quant.network.onnx.values.reading import Reading
from nvdla_quant.network.shapes import image


def space_to_depth(node: Node, reading: Reading) -> None:
    """Read SpaceToDepth."""
    tensor, block = reading.image(node.input()), _block(node)
    order = onnx_order(image(reading.shape(tensor))[0], (block, block))
    reading.emit(node.output, SpaceToDepth((block, block), order), tensor)


def depth_to_space(node: Node, reading: Reading) -> None:
    """Read DepthToSpace in both its orders; before opset 11 there was DCR alone."""
    tensor, block = reading.image(node.input()), _block(node)
    channels, mode = image(reading.shape(tensor))[0], node.text("mode", "DCR")
    if mode not in ("DCR", "CRD"):
        raise NetworkError(f"mode {mode!r}, expected DCR or CRD")
    if channels % block**2:
        raise NetworkError(f"blocksize {block} for {channels} channels, expected a multiple of {block**2} of them")
    order = tuple(range(channels))
    if mode == "DCR":
        order = inverted(onnx_order(channels // block**2, (block, block)))
    reading.emit(node.output, DepthToSpace((block, block), order), tensor)


def _block(node: Node) -> int:
    block = node.integer("blocksize", 0)
    if block < 1:
        raise NetworkError(f"blocksize {block}, expected 1 or more")
    return block
