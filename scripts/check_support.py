"""Say what a target can run of a network, before anything is compiled."""

from pathlib import Path

from nvdla_quant.hardware.targets import COMPILED_PRECISIONS, target_of
from nvdla_quant.jobs import logs
from nvdla_quant.jobs.files import write_json
from nvdla_quant.network.caffe.reader import read_network
from nvdla_quant.support.check import findings_by_precision
from nvdla_quant.support.miscompiles import findings_by_variant

with logs.capture(snakemake.log[0]):
    network = read_network(Path(snakemake.input.prototxt), Path(snakemake.input.caffemodel))
    target = target_of(snakemake.params.target)
    findings = findings_by_precision(network, target, COMPILED_PRECISIONS)
    if variants := snakemake.params.nvdla_compiler:
        findings["nvdla_compiler"] = findings_by_variant(network, target, variants, snakemake.params.options)
    write_json(snakemake.output.support, findings)
