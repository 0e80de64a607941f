"""Score a variant against the labels and against fp32."""

from pathlib import Path

from nvdla_quant import logs
from nvdla_quant.evaluation.accuracy import Subject, deviation_of, measure, write_accuracy
from nvdla_quant.files import read_npz

with logs.capture(snakemake.log[0]):
    dumps = read_npz(*map(Path, snakemake.input.dumps))
    reference = read_npz(*map(Path, snakemake.input.reference))
    accuracy = measure(
        Subject(**snakemake.params.subject),
        reference["labels"],
        dumps["output"],
        logits=dumps.get("logits"),
        exactness="; ".join(dict.fromkeys(map(str, dumps["exactness"]))),
        deviation=deviation_of(dumps),
        reference=reference["scores"],
        ran=dumps.get("ran"),
    )
    write_accuracy(Path(snakemake.output.accuracy), accuracy)
