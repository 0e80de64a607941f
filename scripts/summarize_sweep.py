"""Put the accuracies and verdicts of a sweep side by side."""

from pathlib import Path

from nvdla_quant import logs
from nvdla_quant.evaluation.accuracy import read_accuracy
from nvdla_quant.report.tables import read_verdict, summarize, write_summary_tex, write_summary_tsv

with logs.capture(snakemake.log[0]):
    verdicts = map(read_verdict, map(Path, snakemake.input.verdicts))
    rows = summarize(map(read_accuracy, snakemake.input.accuracies), verdicts)
    write_summary_tsv(Path(snakemake.output.tsv), rows)
    write_summary_tex(Path(snakemake.output.tex), rows)
