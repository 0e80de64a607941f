"""Say what a target can run of a network, before anything is compiled."""

from pathlib import Path

from nvdla_quant import logs
from nvdla_quant.files import write_json
from nvdla_quant.hardware import COMPILED_PRECISIONS, target_of
from nvdla_quant.network.caffe import read_network
from nvdla_quant.network.miscompiles import findings_by_variant
from nvdla_quant.network.support import findings_by_precision

with logs.capture(snakemake.log[0]):
    network = read_network(Path(snakemake.input.prototxt), Path(snakemake.input.caffemodel))
    target = target_of(snakemake.params.target)
    findings = findings_by_precision(network, target, COMPILED_PRECISIONS)
    if variants := snakemake.params.nvdla_compiler:
        findings["nvdla_compiler"] = findings_by_variant(network, target, variants, snakemake.params.options)
    write_json(snakemake.output.support, findings)
