"""Which output of a loadable is which of the network, and which tensors tell whether it is right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nvdla_quant.errors import NetworkError
from nvdla_quant.network.graph import Network, Softmax
from nvdla_quant.network.views import viewed


@dataclass(frozen=True)
class Output:
    """An output of a loadable.

    Attributes
    ----------
    number : int
        Its number in the loadable.
    name : str
        What the loadable calls it.
    tensor : str
        The tensor of the network that it has to hold.
    """

    number: int
    name: str
    tensor: str


def outputs_of(ports: Sequence[str], network: Network) -> tuple[Output, ...]:
    """Return the outputs of a loadable with what each has to hold, in the loadable's order.

    Among several, one that is called as an output of the network (its blob, else its layer) has to hold that one. What
    the others are called says nothing, so they have to hold the rest in the network's order. An only output may be
    called anything.

    Parameters
    ----------
    ports : Sequence[str]
        What the loadable calls its outputs, in its order.
    network : Network
        Its network, or one that computes the same: rewritten, or with layers taken apart.

    Raises
    ------
    NetworkError
        They have different numbers of outputs.
    """
    tensors = _held(network)
    if len(ports) != len(tensors):
        raise NetworkError(
            f"the loadable has {_counted(ports)}, the network {_counted(tensors)}; is it the network of this loadable?"
        )
    if len(ports) == 1:
        return (Output(0, ports[0], tensors[0]),)
    blobs = {tensor.blob: viewed(network, tensor.name) for tensor in network.outputs}
    layers = {tensor.name: viewed(network, tensor.name) for tensor in network.outputs}
    found: dict[int, str] = {}
    for named in (blobs, layers, {name: name for name in tensors}):
        for number, name in enumerate(ports):
            tensor = named.get(name)
            if number not in found and tensor is not None and tensor not in found.values():
                found[number] = tensor
    rest = iter([tensor for tensor in tensors if tensor not in found.values()])
    return tuple(Output(number, name, found.get(number) or next(rest)) for number, name in enumerate(ports))


def ends_of(network: Network) -> frozenset[str]:
    """Return the tensors that tell whether a network's outputs are right: they, and what a final Softmax reads."""
    ends = set(_held(network))
    softmaxes = (network.by_name[name] for name in ends & network.by_name.keys())
    before = {viewed(network, layer.inputs[0]) for layer in softmaxes if isinstance(layer.operation, Softmax)}
    return frozenset(ends | before)


def misplaced(outputs: Sequence[Output], holds: Mapping[int, str | None]) -> str:
    """Return which outputs hold another tensor than they have to, by `holds`; empty where none does.

    Parameters
    ----------
    outputs : Sequence[Output]
        All of them.
    holds : Mapping[int, str or None]
        The tensor in each that does not hold its own, by its number; None where that is no output of the network.
    """
    parts = []
    for output in outputs:
        if output.number in holds:
            other = holds[output.number]
            instead = "" if other is None else f", it holds {other}"
            parts.append(f"output {output.name!r} is not {output.tensor}{instead}")
    return "; ".join(parts)


def _held(network: Network) -> list[str]:
    """Return the network's outputs, views left out: two views of one tensor are one output."""
    return list(dict.fromkeys(viewed(network, tensor.name) for tensor in network.outputs))


def _counted(names: Sequence[str]) -> str:
    return f"{len(names)} output{'' if len(names) == 1 else 's'} ({', '.join(names) or 'none'})"
