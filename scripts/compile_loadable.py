"""Compile a network to a loadable."""

from pathlib import Path

from nvdla_quant.compiler import compile_network
from nvdla_quant.hardware.targets import target_of
from nvdla_quant.jobs import logs
from nvdla_quant.jobs.files import write_bytes, write_json
from nvdla_quant.network.caffe.reader import read_network
from nvdla_quant.table.table import read_table

with logs.capture(snakemake.log[0]):
    network = read_network(Path(snakemake.input.prototxt), Path(snakemake.input.caffemodel))
    table = read_table(Path(snakemake.input.table)) if snakemake.input.table else None
    compilation = compile_network(network, table, target_of(snakemake.params.target), **snakemake.params.options)
    write_bytes(snakemake.output.loadable, compilation.data)
    write_json(snakemake.output.report, compilation.report)
