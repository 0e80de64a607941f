"""Score a variant against the labels and against fp32."""

from pathlib import Path

from nvdla_quant.evaluation.accuracy import Subject, deviation_of, measure, write_accuracy
from nvdla_quant.evaluation.comparison import Scored, compare, output_step, write_comparisons
from nvdla_quant.jobs import logs
from nvdla_quant.jobs.files import read_npz
from nvdla_quant.network.caffe.reader import read_structure
from nvdla_quant.table.table import read_table

with logs.capture(snakemake.log[0]):
    dumps = read_npz(*map(Path, snakemake.input.dumps))
    reference = read_npz(*map(Path, snakemake.input.reference))
    subject, ran = Subject(**snakemake.params.subject), dumps.get("ran")
    given = {"logits": dumps.get("logits"), "reference": reference["scores"], "deviation": deviation_of(dumps)}
    exactness = "; ".join(dict.fromkeys(map(str, dumps["exactness"])))
    accuracy = measure(subject, reference["labels"], dumps["output"], exactness=exactness, ran=ran, **given)
    write_accuracy(Path(snakemake.output.accuracy), accuracy)
    table = read_table(Path(snakemake.input.table)) if snakemake.input.table else None
    step = output_step(read_structure(Path(snakemake.input.prototxt)), table)
    run, fp32 = Scored.of(dumps["output"], step, dumps.get("ran")), Scored.of(reference["scores"], 1.0)
    found = compare(snakemake.params.pair, reference["labels"], run, fp32)
    write_comparisons(Path(snakemake.output.comparison), [] if found is None else [found])
