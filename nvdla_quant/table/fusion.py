"""Which layers stand for one operation: views, and the chains that a compiler fuses."""

from collections.abc import Iterator

from nvdla_quant.network.graph import Layer, Network

VIEWS = frozenset({"Dropout", "Flatten", "Reshape"})
"""Layers that pass their input's elements on; no scale of their own, and no entry in a calibration table."""

FUSED_AFTER = frozenset({"BatchNorm", "Scale", "Power", "ReLU", "PReLU", "Sigmoid", "TanH"})
"""Element-wise layers that join the operation before them where nothing else reads what that wrote."""

FUSION_STARTS = frozenset({"Convolution", "Deconvolution", "InnerProduct", "Eltwise"}) | FUSED_AFTER
"""Layers that such layers can join: what NVDLA runs on the convolution core and the SDP, or on the SDP alone."""


def viewed(network: Network, name: str) -> str:
    """Return the tensor that `name` shows: itself, or what stands before the views that end in it."""
    while name in network.by_name and network.by_name[name].kind in VIEWS:
        name = network.by_name[name].inputs[0]
    return name


def readers(network: Network, name: str) -> Iterator[Layer]:
    """Yield the layers that read the elements of tensor `name`, directly or through views."""
    for layer in network.consumers[name]:
        if layer.kind in VIEWS:
            yield from readers(network, layer.name)
        else:
            yield layer


def sole_reader(network: Network, name: str) -> Layer | None:
    """Return the one layer that reads `name`, or None where there are none or several, or a view of it is an output."""
    if any(viewed(network, output.name) == name for output in network.outputs):
        return None
    found = list(readers(network, name))
    return found[0] if len(found) == 1 else None


def fused_end(network: Network, name: str) -> str:
    """Return the last tensor of the fused operation that computes `name`; its scale is the one that counts.

    `nvdla_compiler`'s fast-math profile merges convolution, BatchNorm, Scale and ReLU (and an element-wise sum and its
    ReLU) into one operation, which keeps the scale of its last layer; the entries before have no effect.
    """
    while name in network.by_name and network.by_name[name].kind in FUSION_STARTS:
        reader = sole_reader(network, name)
        if reader is None or reader.kind not in FUSED_AFTER:
            break
        name = reader.name
    return name
