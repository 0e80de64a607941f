"""Score what TensorRT made of the test images against the labels and against fp32."""

from pathlib import Path

from nvdla_quant.evaluation.accuracy import Subject, measure, write_accuracy
from nvdla_quant.jobs import logs
from nvdla_quant.jobs.files import read_npz

with logs.capture(snakemake.log[0]):
    found, reference = read_npz(Path(snakemake.input.scores)), read_npz(*map(Path, snakemake.input.reference))
    subject, exactness = Subject(**snakemake.params.subject), str(found["exactness"][0])
    scores, labels, fp32 = found["scores"], reference["labels"], reference["scores"]
    accuracy = measure(subject, labels, scores, exactness=exactness, reference=fp32)
    write_accuracy(Path(snakemake.output.accuracy), accuracy)
