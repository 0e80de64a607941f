"""Plot the accuracies of a sweep with their intervals."""

from pathlib import Path

from nvdla_quant import logs
from nvdla_quant.evaluation.accuracy import read_accuracy
from nvdla_quant.report.plots import accuracy_chart, write_chart
from nvdla_quant.report.tables import summarize

with logs.capture(snakemake.log[0]):
    chart = accuracy_chart(summarize(map(read_accuracy, snakemake.input.accuracies)))
    for path in snakemake.output:
        write_chart(Path(path), chart)
