"""Compare the variants of a case with fp32, with the best of them, and per-filter with per-kernel."""

from pathlib import Path

from nvdla_quant.evaluation.comparison import DumpedRuns, compare_case, read_comparisons, write_comparisons
from nvdla_quant.jobs import logs
from nvdla_quant.jobs.files import read_npz

with logs.capture(snakemake.log[0]):
    reference = read_npz(*map(Path, snakemake.input.reference))
    with_fp32 = [found for path in snakemake.input.comparisons for found in read_comparisons(path)]
    runs = DumpedRuns.of(snakemake.params.runs, list(map(Path, snakemake.input.dumps)), with_fp32)
    groups, modes = snakemake.params.groups, snakemake.params.modes
    case = {"model": snakemake.wildcards.model, "dataset": snakemake.wildcards.dataset}
    found = compare_case(case, reference["labels"], reference["scores"], groups, modes, runs)
    write_comparisons(Path(snakemake.output.comparisons), found)
