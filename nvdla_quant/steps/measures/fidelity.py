"""Hold the outputs of a loadable to fp32's, whatever they mean, and the runs of a case to each other."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import DumpError
from nvdla_quant.evaluation.accuracy import Deviation, Subject, deviation_of
from nvdla_quant.evaluation.fidelity.figures import (
    Output,
    Task,
    measure,
    read_fidelity,
    write_fidelity,
    write_image_errors,
)
from nvdla_quant.evaluation.fidelity.images import ImageErrors, errors_of, joined
from nvdla_quant.evaluation.fidelity.pairs import Quality, compare_case, write_pairs
from nvdla_quant.jobs.files import read_npz
from nvdla_quant.network.files import read_structure
from nvdla_quant.network.graph import Network
from nvdla_quant.network.views import viewed
from nvdla_quant.runtime.base import outputs_in
from nvdla_quant.table.table import read_table
from nvdla_quant.verification.measures.outputs import outputs_of

Arrays = Mapping[str, NDArray[Any]]
OF_IMAGE = ("checked", "checked_output", "checked_logits")
"""What dumps say of images that were also run bit for bit."""


@dataclass(frozen=True, eq=False)
class Shard:
    """A part of the test images: outputs in the device's domain beside fp32's, in the order of the network.

    Attributes
    ----------
    names : tuple[str, ...]
        What the network's file calls the outputs.
    made : tuple[NDArray, ...]
        The device's, ``(n, c, h, w)``.
    steps : tuple[float or None, ...]
        Real value of one step of each; None in fp16.
    exact : tuple[NDArray[float32], ...]
        fp32's, ``(n, ...)``.
    ran : NDArray[bool]
        Images that gave an output.
    dump : Mapping
        All that the device's file holds.
    """

    names: tuple[str, ...]
    made: tuple[NDArray[Any], ...]
    steps: tuple[float | None, ...]
    exact: tuple[NDArray[np.float32], ...]
    ran: NDArray[np.bool_]
    dump: Arrays


def shards_of(
    dumps: Sequence[str], reference: Sequence[str], files: Sequence[str], table: str | None
) -> Iterator[Shard]:
    """Yield the parts of a run, one in memory at a time.

    Parameters
    ----------
    dumps, reference : Sequence[str]
        The device's outputs and fp32's, in the same order.
    files : Sequence[str]
        Those of the prepared network, or the one with its structure.
    table : str or None
        Its fixed calibration table, which has the scales of the outputs; fp16 has none.

    Raises
    ------
    DumpError
        The outputs of one are not those of the other.
    """
    network = read_structure(files)
    scales = None if table is None else read_table(Path(table))
    steps = tuple(None if scales is None else scales[output.name] for output in network.outputs)
    for dump, wanted in zip(dumps, reference, strict=True):
        arrays, exact = read_npz(Path(dump)), outputs_in(read_npz(Path(wanted)))
        if len(exact) != len(steps):
            raise DumpError(
                f"{wanted}: {len(exact)} outputs ({', '.join(exact)}), but {files[0]} has {len(steps)}; remove it and "
                "run again"
            )
        made = in_order(outputs_in(arrays), network)
        ran = arrays.get("ran", np.ones(len(made[0]), np.bool_)).astype(np.bool_)
        yield Shard(tuple(exact), made, steps, tuple(exact.values()), ran, arrays)


def in_order(outputs: Arrays, network: Network) -> tuple[NDArray[Any], ...]:
    """Return the outputs of a loadable, by its names for them, in the order of the network's."""
    held = {output.tensor: outputs[output.name] for output in outputs_of(list(outputs), network)}
    return tuple(held[viewed(network, output.name)] for output in network.outputs)


def score_fidelity(
    dumps: Sequence[str],
    reference: Sequence[str],
    files: Sequence[str],
    table: str | None,
    numbers: Sequence[str],
    fidelity: str,
    images: str,
    subject: Mapping[str, Any],
    task: Mapping[str, Any],
) -> None:
    """Score raw dumps against fp32's outputs.

    Parameters
    ----------
    dumps, reference, files, table
        See `shards_of`.
    numbers : Sequence[str]
        What a command says of the run and of fp32, see `command.number_images`; empty without one.
    fidelity, images : str
        What is written: the figures, and the errors of each image.
    subject, task : Mapping
        What the row of the variant says before any number, and what counts (`figures.Task`).
    """
    counted = Task(**task)
    found: list[list[ImageErrors]] = []
    ran: list[NDArray[np.bool_]] = []
    said: dict[str, None] = {}
    checked: list[Arrays] = []
    for shard in shards_of(dumps, reference, files, table):
        found.append([errors[shard.ran] for errors in _errors(shard, counted)])
        ran.append(shard.ran)
        said |= dict.fromkeys(map(str, shard.dump["exactness"]))
        checked.append({name: shard.dump[name] for name in OF_IMAGE if name in shard.dump})
        names, steps, shapes = shard.names, shard.steps, [values.shape[1:] for values in shard.exact]
    errors = map(joined, zip(*found, strict=True))
    outputs = [Output(*parts) for parts in zip(names, shapes, steps, errors, strict=True)]
    everywhere = np.concatenate(ran)
    if not everywhere.all():
        said[f"{np.count_nonzero(~everywhere)} of {len(everywhere)} images gave no output and are left out"] = None
    given = [read_npz(Path(path))["numbers"] for path in numbers]
    ours, theirs = (given[0], given[1]) if given else (None, None)
    scored = measure(
        Subject(**subject),
        outputs,
        counted,
        exactness="; ".join(said),
        deviation=_deviation(checked),
        numbers=None if ours is None or theirs is None else (ours[everywhere], theirs[everywhere]),
    )
    write_fidelity(fidelity, scored)
    write_image_errors(images, outputs, everywhere, ours)


def _errors(shard: Shard, task: Task) -> Iterator[ImageErrors]:
    """Yield the errors of each output; where highest channels count, of those that have several."""
    several = [values.ndim > 2 and values.shape[1] > 1 for values in shard.exact]
    if task.argmax and not any(several):
        raise DumpError(
            f"argmax: no output ({', '.join(shard.names)}) has pixels of several channels; remove it from the case"
        )
    for made, step, exact, pixels in zip(shard.made, shard.steps, shard.exact, several, strict=True):
        yield errors_of(made, step, exact, argmax=task.argmax and pixels)


def _deviation(parts: Sequence[Arrays]) -> Deviation | None:
    """Return how far off a fast run is, by what its parts say of it."""
    names = parts[0].keys()
    return deviation_of({name: np.concatenate([part[name] for part in parts]) for name in names})


def compare_fidelities(
    case: Mapping[str, str],
    groups: Sequence[Mapping[str, Any]],
    pairs: Sequence[Mapping[str, str]],
    runs: Sequence[Sequence[str]],
    files: Mapping[str, Sequence[str]],
    task: Mapping[str, Any],
    comparisons: str,
) -> None:
    """Compare the runs of a case with fp32, by a command's numbers, with the best of them, and in pairs.

    Parameters
    ----------
    case, groups, pairs, runs
        ``model`` and ``dataset``; see `pairs.compare_case`; targets and variants.
    files : Mapping
        ``fidelities`` and ``images`` of the runs in their order, see `score_fidelity`; ``numbers``, of fp32 where there
        are any.
    task : Mapping
        See `figures.Task`.
    comparisons : str
        What is written.
    """
    found = {
        (target, variant): (fidelity, images)
        for (target, variant), fidelity, images in zip(runs, files["fidelities"], files["images"], strict=True)
    }

    def load(target: str, variant: str) -> Quality | None:
        fidelity, images = found[target, variant]
        if read_fidelity(fidelity).sqnr is None:
            return None
        arrays = read_npz(Path(images))
        return Quality(arrays["noise"], arrays.get("numbers"))

    reference = None
    for path in files["numbers"]:
        numbers = read_npz(Path(path))["numbers"]
        reference = Quality(np.zeros(len(numbers)), numbers)
    better = Task(**task).lower_is_better
    write_pairs(comparisons, compare_case(case, groups, pairs, load, reference=reference, lower_is_better=better))
