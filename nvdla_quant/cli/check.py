"""``nvdla-quant check``."""

import json

import typer

from nvdla_quant.cli.options import (
    DEFAULT_TARGET,
    AsJson,
    Caffemodel,
    ComputePrecision,
    ConfigTarget,
    InputShape,
    LoadablePrecision,
    Onnx,
    Prototxt,
    network_of,
    structure_of,
)
from nvdla_quant.hardware.spec import target_of
from nvdla_quant.network.findings import Finding
from nvdla_quant.network.graph import Network
from nvdla_quant.network.problems import LayersError, unreadable
from nvdla_quant.support.check import check as check_support

NOT_SUPPORTED = 3
"""Exit status of `check` where a target cannot run the network."""


def command(
    prototxt: Prototxt = None,
    caffemodel: Caffemodel = None,
    onnx: Onnx = None,
    input_shape: InputShape = None,
    configtarget: ConfigTarget = DEFAULT_TARGET,
    cprecision: ComputePrecision = LoadablePrecision.INT8,
    as_json: AsJson = False,
) -> None:
    """Say what a target cannot run of a network, all of it; exit status 3 where that is anything."""
    target = target_of(configtarget)
    unread: tuple[Finding, ...] = ()
    network: Network | None
    try:
        if caffemodel is None:
            network = structure_of(prototxt, onnx, input_shape)
        else:
            network = network_of(prototxt, caffemodel, onnx, input_shape)
    except LayersError as error:
        if not all(problem.is_unsupported for problem in error.problems):
            raise
        network, unread = error.known, unreadable(error.problems, error.supported)
    findings = (*unread, *(() if network is None else check_support(network, target, cprecision)))
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
