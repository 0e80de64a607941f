"""Compile a network to a loadable with NVIDIA's compiler."""

from pathlib import Path

from nvdla_quant.compiler.nvdla_compiler import NvdlaCompiler
from nvdla_quant.hardware.targets import target_of
from nvdla_quant.jobs import logs
from nvdla_quant.jobs.files import write_bytes, write_json
from nvdla_quant.network.caffe.reader import read_network
from nvdla_quant.table.table import read_table

with logs.capture(snakemake.log[0]):
    network = read_network(Path(snakemake.input.prototxt), Path(snakemake.input.caffemodel))
    table = read_table(Path(snakemake.input.table)) if snakemake.input.table else None
    compiler = NvdlaCompiler.from_config(snakemake.params.backend)
    target = target_of(snakemake.params.target)
    data, report = compiler.compile(network, table, target, **snakemake.params.options)
    write_bytes(snakemake.output.loadable, data)
    write_json(snakemake.output.report, report)
