"""Put the accuracies and verdicts of a sweep side by side, and its paired comparisons."""

from nvdla_quant.jobs import logs
from nvdla_quant.report.evidence import pair_rows, read_evidence, seed_rows
from nvdla_quant.report.frames import PAIRS, SEEDS, SUMMARY, write_tsv
from nvdla_quant.report.tables import sheets_of
from nvdla_quant.report.writers import write_sheets

with logs.capture(snakemake.log[0]):
    given, made, groups = snakemake.input, snakemake.output, snakemake.params.groups
    evidence = read_evidence(given.accuracies, given.comparisons, groups, verdicts=given.verdicts)
    write_tsv(made.tsv, evidence.accuracies, SUMMARY)
    write_tsv(made.pairs, pair_rows(evidence), PAIRS)
    write_tsv(made.seeds, seed_rows(evidence), SEEDS)
    write_sheets(sheets_of(evidence), made.tex, made.md)
