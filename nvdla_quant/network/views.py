"""Tensors that share their elements: dropout, flatten and reshape only rename what they read; others move some."""

from collections.abc import Iterator

from nvdla_quant.network.graph import Concat, Dropout, Flatten, Gather, Layer, Network, Reshape
from nvdla_quant.network.moves import Crop, DepthToSpace, SpaceToDepth

VIEWS = (Dropout, Flatten, Reshape)
"""Operations that pass the elements of their input on, in their order."""

MOVES = (Gather, Crop, SpaceToDepth, DepthToSpace)
"""Operations that pass elements of their input on in another place, as they are: at its scale."""


def viewed(network: Network, name: str) -> str:
    """Tensor whose elements `name` shows: itself, or what stands before the views that end in it."""
    while name in network.by_name and isinstance(network.by_name[name].operation, VIEWS):
        name = network.by_name[name].inputs[0]
    return name


def readers(network: Network, name: str) -> Iterator[Layer]:
    """Layers that read the elements of tensor `name`, directly or through views."""
    for layer in network.consumers[name]:
        if isinstance(layer.operation, VIEWS):
            yield from readers(network, layer.name)
        else:
            yield layer


def sole_reader(network: Network, name: str) -> Layer | None:
    """Layer that alone reads the elements of `name`; None where there is none or several, or they are an output."""
    if any(viewed(network, output.name) == name for output in network.outputs):
        return None
    found = list(readers(network, name))
    return found[0] if len(found) == 1 else None


def is_joined_alone(network: Network, name: str) -> bool:
    """Whether Concats are all that reads the elements of tensor `name`, so that it only has to stand in theirs."""
    found = list(readers(network, name))
    return bool(found) and all(isinstance(layer.operation, Concat) for layer in found)
