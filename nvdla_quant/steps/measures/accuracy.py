"""Score a variant, and compare it with fp32 image by image."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nvdla_quant.evaluation.accuracy import Subject, deviation_of, measure, write_accuracy
from nvdla_quant.evaluation.comparison import Scored, compare, output_step, write_comparisons
from nvdla_quant.jobs.files import read_npz
from nvdla_quant.network.files import read_structure
from nvdla_quant.table.table import read_table


def score_variant(
    dumps: Iterable[str],
    reference: Iterable[str],
    files: Sequence[str],
    table: str | None,
    accuracy: str,
    comparison: str,
    subject: Mapping[str, Any],
    pair: Mapping[str, str],
) -> None:
    """Score raw dumps against the labels and against fp32.

    Parameters
    ----------
    dumps, reference : iterable of str
        Shards of the device's output and of the fp32 scores, in the same order.
    files : Sequence[str]
        Those of the prepared network, or the one with its structure.
    table : str or None
        Its fixed calibration table, which has the scale of the output; fp16 has none.
    accuracy, comparison : str
        What is written.
    subject, pair : Mapping
        What the row of the variant, and that of its comparison with fp32, say before any number.
    """
    found, fp32 = read_npz(*map(Path, dumps)), read_npz(*map(Path, reference))
    labels, ran = fp32["labels"], found.get("ran")
    exactness = "; ".join(dict.fromkeys(map(str, found["exactness"])))
    measured = measure(
        Subject(**subject),
        labels,
        found["output"],
        exactness=exactness,
        deviation=deviation_of(found),
        logits=found.get("logits"),
        reference=fp32["scores"],
        ran=ran,
    )
    write_accuracy(Path(accuracy), measured)
    step = output_step(read_structure(files), read_table(Path(table)) if table else None)
    compared = compare(pair, labels, Scored.of(found["output"], step, ran), Scored.of(fp32["scores"], 1.0))
    write_comparisons(Path(comparison), [] if compared is None else [compared])
