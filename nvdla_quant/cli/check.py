"""``nvdla-quant check``."""

import json
from collections.abc import Callable, Sequence

import typer

from nvdla_quant.cli.options import (
    DEFAULT_TARGET,
    AsJson,
    Caffemodel,
    ComputePrecision,
    ConfigTarget,
    CutAt,
    InputShape,
    LoadablePrecision,
    Onnx,
    Prototxt,
    network_of,
    structure_of,
)
from nvdla_quant.hardware.spec import target_of
from nvdla_quant.hardware.targets import Target
from nvdla_quant.network.findings import Finding
from nvdla_quant.network.graph import Network
from nvdla_quant.network.problems import LayersError, unreadable
from nvdla_quant.support.check import check as check_support
from nvdla_quant.support.ends import compilable_ends, proposal

NOT_SUPPORTED = 3
"""Exit status of `check` where a target cannot run the network."""


def command(
    prototxt: Prototxt = None,
    caffemodel: Caffemodel = None,
    onnx: Onnx = None,
    input_shape: InputShape = None,
    cut_at: CutAt = None,
    configtarget: ConfigTarget = DEFAULT_TARGET,
    cprecision: ComputePrecision = LoadablePrecision.INT8,
    as_json: AsJson = False,
) -> None:
    """Say what a target cannot run of a network, all of it; exit status 3 where that is anything."""
    target = target_of(configtarget)

    def read(ends: Sequence[str] | None) -> Network:
        if caffemodel is None:
            return structure_of(prototxt, onnx, input_shape, ends)
        return network_of(prototxt, caffemodel, onnx, input_shape, ends)

    unread: tuple[Finding, ...] = ()
    network: Network | None
    ends: Sequence[str]
    try:
        network = read(cut_at)
        ends = compilable_ends(network, target, cprecision)
    except LayersError as error:
        if not all(problem.is_unsupported for problem in error.problems):
            raise
        network, unread = error.known, unreadable(error.problems, error.supported)
        ends = _ends_of_rest(read, error.ends, target, cprecision)
    findings = (
        *unread,
        *(() if network is None else check_support(network, target, cprecision)),
        *proposal(ends),
    )
    if as_json:
        print(json.dumps({"findings": [vars(finding) for finding in findings]}, indent=2))
    else:
        for finding in findings:
            advice = f" Instead: {finding.rewrite}." if finding.rewrite else ""
            print(f"{finding.severity}: {finding.layer or 'network'} [{finding.rule}]: {finding.message}.{advice}")
        if network is not None and not any(finding.severity == "error" for finding in findings):
            count = sum(not layer.inner for layer in network.layers)
            print(f"{target.name} runs all {count} layers in {cprecision}")
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(NOT_SUPPORTED)


def _ends_of_rest(
    read: Callable[[Sequence[str]], Network], ends: Sequence[str], target: Target, precision: str
) -> Sequence[str]:
    """Return where a network could end that can be read up to `ends`, there or before; nothing where it cannot."""
    if not ends:
        return ()
    rest = read(ends)
    is_fine = all(finding.severity != "error" for finding in check_support(rest, target, precision))
    return ends if is_fine else compilable_ends(rest, target, precision)
