"""Say what a target can run of a network, before anything is compiled."""

from collections.abc import Mapping, Sequence
from typing import Any

from nvdla_quant.hardware.spec import target_of
from nvdla_quant.hardware.targets import COMPILED_PRECISIONS
from nvdla_quant.jobs.files import write_json
from nvdla_quant.network.files import read_model
from nvdla_quant.support.ends import findings_by_precision
from nvdla_quant.support.miscompiles import findings_by_variant


def check_support(
    files: Sequence[str],
    support: str,
    target: str | Mapping[str, str],
    nvdla_compiler: Mapping[str, Mapping[str, Any]],
    options: Mapping[str, str],
) -> None:
    """Write the findings on a network for each precision, and for each variant that NVIDIA's compiler makes.

    Parameters
    ----------
    files : Sequence[str]
        Those of the network.
    support : str
        Where the findings go.
    target : str or Mapping
        The hardware, see `target_of`.
    nvdla_compiler : Mapping
        How that compiler's variants are made, by name; none where it makes none.
    options : Mapping
        What that compiler is told for all of them.
    """
    network, hardware = read_model(files), target_of(target)
    findings = findings_by_precision(network, hardware, COMPILED_PRECISIONS)
    if nvdla_compiler:
        findings["nvdla_compiler"] = findings_by_variant(network, hardware, nvdla_compiler, options)
    write_json(support, findings)
