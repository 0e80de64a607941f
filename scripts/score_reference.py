"""Score the fp32 network."""

from pathlib import Path

from nvdla_quant.evaluation.accuracy import fp32_subject, measure, write_accuracy
from nvdla_quant.jobs import logs
from nvdla_quant.jobs.files import read_npz

with logs.capture(snakemake.log[0]):
    reference, subject = read_npz(*map(Path, snakemake.input.reference)), fp32_subject(**snakemake.params.subject)
    labels, scores, logits = reference["labels"], reference["scores"], reference.get("logits")
    accuracy = measure(subject, labels, scores, logits=logits, exactness="fp32")
    write_accuracy(Path(snakemake.output.accuracy), accuracy)
