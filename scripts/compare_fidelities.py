"""Compare the variants of a case by their outputs, or by a command's numbers."""

from nvdla_quant.jobs import logs
from nvdla_quant.steps.measures.fidelity import compare_fidelities

with logs.capture(snakemake.log[0]):
    params = snakemake.params
    files = {key: snakemake.input[key] for key in ("fidelities", "images", "numbers")}
    case = params.case, params.groups, params.pairs, params.runs
    compare_fidelities(*case, files, params.task, snakemake.output.comparisons)
