"""Score what TensorRT made of the test images against the labels and against fp32."""

from pathlib import Path

from nvdla_quant.evaluation.accuracy import Subject, measure, write_accuracy
from nvdla_quant.jobs import logs
from nvdla_quant.jobs.files import read_npz

with logs.capture(snakemake.log[0]):
    found = read_npz(Path(snakemake.input.scores))
    reference = read_npz(*map(Path, snakemake.input.reference))
    accuracy = measure(
        Subject(**snakemake.params.subject),
        reference["labels"],
        found["scores"],
        exactness=str(found["exactness"][0]),
        reference=reference["scores"],
    )
    write_accuracy(Path(snakemake.output.accuracy), accuracy)
