"""Put the accuracies and verdicts of a sweep side by side, and its paired comparisons."""

from pathlib import Path

from nvdla_quant.jobs import logs
from nvdla_quant.report.evidence import pair_rows, read_evidence, seed_rows
from nvdla_quant.report.frames import PAIRS, SEEDS, SUMMARY, write_tsv
from nvdla_quant.report.tables import sheets_of
from nvdla_quant.report.writers import write_markdown, write_tex

with logs.capture(snakemake.log[0]):
    given, groups = snakemake.input, snakemake.params.groups
    evidence = read_evidence(given.accuracies, given.comparisons, groups, verdicts=given.verdicts)
    write_tsv(Path(snakemake.output.tsv), evidence.accuracies, SUMMARY)
    write_tsv(Path(snakemake.output.pairs), pair_rows(evidence), PAIRS)
    write_tsv(Path(snakemake.output.seeds), seed_rows(evidence), SEEDS)
    write_tex(Path(snakemake.output.tex), sheets_of(evidence))
    write_markdown(Path(snakemake.output.md), sheets_of(evidence))
