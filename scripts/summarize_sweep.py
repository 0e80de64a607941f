"""Put the accuracies and verdicts of a sweep side by side, and its paired comparisons."""

from pathlib import Path

from nvdla_quant.jobs import logs
from nvdla_quant.report.evidence import PAIR_COLUMNS, SEED_COLUMNS, pair_rows, read_evidence, seed_rows
from nvdla_quant.report.sheets import sheets_of, write_markdown, write_tex
from nvdla_quant.report.tables import write_tsv

with logs.capture(snakemake.log[0]):
    given, groups = snakemake.input, snakemake.params.groups
    evidence = read_evidence(given.accuracies, given.comparisons, groups, verdicts=given.verdicts)
    write_tsv(Path(snakemake.output.tsv), evidence.rows)
    write_tsv(Path(snakemake.output.pairs), pair_rows(evidence), PAIR_COLUMNS)
    write_tsv(Path(snakemake.output.seeds), seed_rows(evidence), SEED_COLUMNS)
    write_tex(Path(snakemake.output.tex), sheets_of(evidence))
    write_markdown(Path(snakemake.output.md), sheets_of(evidence))
