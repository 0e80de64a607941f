"""Which layers stand for one operation: the chains that a compiler fuses (docs/hardware/calibration-table.md)."""

from nvdla_quant.network.graph import TABULATED, Network
from nvdla_quant.network.views import sole_reader

FUSED_AFTER = frozenset({"BatchNorm", "Scale", "Power", "ReLU", "PReLU", "Clip", *(kind.kind for kind in TABULATED)})
"""Element-wise layers that join the operation before them where nothing else reads what that wrote."""

FUSION_STARTS = frozenset({"Convolution", "Deconvolution", "InnerProduct", "Eltwise"}) | FUSED_AFTER
"""Layers that such layers can join: what NVDLA runs on the convolution core and the SDP, or on the SDP alone."""


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
