"""Put the accuracies and verdicts of a sweep side by side, and its paired comparisons."""

from nvdla_quant.jobs import logs
from nvdla_quant.report.evidence import PAIR_COLUMNS, SEED_COLUMNS, pair_rows, read_evidence, seed_rows
from nvdla_quant.report.sheets import sheets_of, write_markdown, write_tex
from nvdla_quant.report.tables import write_tsv

with logs.capture(snakemake.log[0]):
    given, made = snakemake.input, snakemake.output
    evidence = read_evidence(given.accuracies, given.comparisons, snakemake.params.groups, verdicts=given.verdicts)
    write_tsv(made.tsv, evidence.rows)
    write_tsv(made.pairs, pair_rows(evidence), PAIR_COLUMNS)
    write_tsv(made.seeds, seed_rows(evidence), SEED_COLUMNS)
    write_tex(made.tex, sheets_of(evidence))
    write_markdown(made.md, sheets_of(evidence))
