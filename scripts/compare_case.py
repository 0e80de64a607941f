"""Compare the variants of a case with fp32, with the best of them, and with those that differ in one thing."""

from pathlib import Path

from nvdla_quant.evaluation.comparison import DumpedRuns, compare_case, read_comparisons, write_comparisons
from nvdla_quant.jobs import logs
from nvdla_quant.jobs.files import read_npz

with logs.capture(snakemake.log[0]):
    given, params = snakemake.input, snakemake.params
    reference = read_npz(*map(Path, given.reference))
    with_fp32 = [found for path in given.comparisons for found in read_comparisons(path)]
    runs = DumpedRuns.of(params.runs, list(map(Path, given.dumps)), with_fp32)
    against = reference["labels"], reference["scores"], params.groups, params.pairs, runs
    write_comparisons(snakemake.output.comparisons, compare_case(params.case, *against))
