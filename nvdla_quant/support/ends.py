"""Where a network could end so that a target runs all that is left."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict

from nvdla_quant.hardware.targets import Precision, Target
from nvdla_quant.network.cutting import as_option, cut, ends_before_layers
from nvdla_quant.network.findings import Finding
from nvdla_quant.network.graph import Network
from nvdla_quant.support.check import check


def compilable_ends(network: Network, target: Target, precision: Precision | str) -> list[str]:
    """Return tensors that `network` could end at, so that `target` runs all that is left.

    They are called as in the network's file. None where it runs all of it, and where no tail is to blame: the greater
    part of the convolutions would go, or something that is no layer keeps the network from running.
    """
    bad: set[str] = set()
    ends: list[str] = []
    left = network
    while new := {finding.layer for finding in check(left, target, precision) if finding.severity == "error"} - bad:
        bad |= new
        ends = ends_before_layers(network, bad) if bad <= network.by_name.keys() else []
        if not ends:
            return []
        left = cut(network, ends)
    return ends


def proposal(ends: Sequence[str]) -> tuple[Finding, ...]:
    """Return the finding that a network could end at `ends`; nothing where there are none."""
    if not ends:
        return ()
    message = "what cannot run is the tail of the network, behind most of its convolutions"
    return (Finding("", "cut", "warning", message, f"end the network before it: {as_option(ends)}"),)


def findings_by_precision(network: Network, target: Target, precisions: Iterable[str]) -> dict[str, object]:
    """Return the findings for each of `precisions` as JSON holds them: ``{precision: {"findings": [...]}}``."""
    return {
        str(precision): {"findings": [asdict(finding) for finding in _findings(network, target, precision)]}
        for precision in precisions
    }


def _findings(network: Network, target: Target, precision: str) -> tuple[Finding, ...]:
    return *check(network, target, precision), *proposal(compilable_ends(network, target, precision))
