"""What keeps the layers of a network file from being read, all of it told at once."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nvdla_quant.errors import NetworkError, UnsupportedError, WeightsError
from nvdla_quant.network.cutting import as_option
from nvdla_quant.network.findings import Finding
from nvdla_quant.network.graph import Network


@dataclass(frozen=True)
class Problem:
    """Something that keeps a network from being read.

    Attributes
    ----------
    layer : str
        Name of the layer, or of the ONNX node; empty where it has none.
    rule : str
        ``layer-type`` (of a type that is not read), ``layer`` (with parameters that are not supported),
        ``data-layer`` (its input is written by layers for training or testing that were left out), ``structure`` (the
        file makes no sense), ``weights`` (the weights do not fit).
    message : str
        What is wrong.
    rewrite : str
        What would help; empty where `message` says so or nothing is known to.
    kind : str
        Type of a layer whose type is read.
    """

    layer: str
    rule: str
    message: str
    rewrite: str = ""
    kind: str = ""

    @property
    def is_unsupported(self) -> bool:
        """Whether the file is sound, and the network one that cannot be run as it is."""
        return self.rule in ("layer-type", "layer", "data-layer")


class LayersError(NetworkError):
    """Layers of a network cannot be read: all of them.

    Parameters
    ----------
    where : str
        The files.
    problems : Sequence[Problem]
        At least one, in file order.
    known : Network or None
        The layers that can be read, and stand-ins for some of the others; None where nothing is left. For looking at
        what else the network asks for, and for nothing else.
    supported : Sequence[str]
        The types of layers that are read.
    ends : Sequence[str]
        Tensors that the network could end at, so that all that is left can be read; empty where there are none.
    """

    def __init__(
        self,
        where: str,
        problems: Sequence[Problem],
        known: Network | None,
        supported: Sequence[str],
        ends: Sequence[str] = (),
    ) -> None:
        self.problems = tuple(problems)
        self.known = known
        self.supported = tuple(supported)
        self.ends = tuple(ends)
        text = "; ".join(_sentences(self.problems))
        if any(problem.rule == "layer-type" for problem in self.problems):
            text += f" (supported: {', '.join(self.supported)})"
        if self.ends:
            text += f"; or end the network before them: {as_option(self.ends)}"
        super().__init__(f"{where}: {text}")


def unreadable(problems: Iterable[Problem], supported: Sequence[str]) -> tuple[Finding, ...]:
    """Return layers that cannot be read as findings, of which `support.check` gives those of the others."""
    generic = f"express it by layers of the types that are read: {', '.join(supported)}"
    return tuple(
        Finding(
            problem.layer,
            problem.rule,
            "error",
            problem.message,
            problem.rewrite or (generic if problem.rule == "layer-type" else ""),
        )
        for problem in problems
    )


def rule_of(error: NetworkError) -> str:
    """Return the rule of a problem with the parameters or the weights of a layer."""
    if isinstance(error, UnsupportedError):
        return "layer"
    return "weights" if isinstance(error, WeightsError) else "structure"


def _sentences(problems: Sequence[Problem]) -> Iterator[str]:
    """Yield what is wrong, layers with the same fault together."""
    names: dict[tuple[str, str, str], list[str]] = {}
    for problem in problems:
        names.setdefault((problem.kind, problem.message, problem.rewrite), []).append(problem.layer)
    for (kind, message, rewrite), layers in names.items():
        who = ", ".join(repr(layer) for layer in layers if layer)
        text = f"layer{'s' if len(layers) > 1 else ''} {who}{f' ({kind})' if kind else ''}: {message}"
        yield (text if who else message) + (f"; {rewrite}" if rewrite else "")
