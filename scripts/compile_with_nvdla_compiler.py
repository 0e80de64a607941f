"""Compile a network to a loadable with NVIDIA's compiler."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.nvidia_compilation import compile_with_nvdla_compiler

with logs.capture(snakemake.log[0]):
    given, made, params = snakemake.input, snakemake.output, snakemake.params
    files = given.network, given.table or None, made.loadable, made.report
    compile_with_nvdla_compiler(*files, params.target, params.options, params.backend)
