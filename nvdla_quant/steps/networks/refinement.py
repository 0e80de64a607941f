"""Better int8 than a calibrator alone gives: equalize a network, refine its weights, search its scales."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.execution.fp32 import Images
from nvdla_quant.hardware.spec import target_of
from nvdla_quant.hardware.targets import QuantizationMode
from nvdla_quant.images.preprocess import Normalised, Preprocessing, to_device
from nvdla_quant.images.selection import read_images
from nvdla_quant.jobs import logs
from nvdla_quant.jobs.files import format_records, write_text
from nvdla_quant.network.files import read_model
from nvdla_quant.network.passes import prepare
from nvdla_quant.steps.networks.forms import write_network
from nvdla_quant.table.table import read_table, write_table

SEARCHED_IMAGES = 128
"""Calibration images that a search runs each loadable on."""

_LOG = logging.getLogger(__name__)


def equalize_network(
    files: Sequence[str],
    made: Sequence[str],
    report: str,
    images: Sequence[str],
    preprocessing: Mapping[str, Any],
    threads: int,
) -> None:
    """Fold a network, equalize it, and hold it to the original on all calibration images.

    Parameters
    ----------
    files : Sequence[str]
        Those of the original network.
    made : Sequence[str]
        What is written: Caffe's files, or one of ONNX.
    report : str
        What was changed, link by link.
    images : Sequence[str]
        Calibration images, one file for each set.
    preprocessing : Mapping
        Mean and scale of the pixels.
    threads : int
        Threads of onnxruntime.
    """
    from nvdla_quant.quantization.equalization import Change
    from nvdla_quant.quantization.unchanged import equalize_checked

    network = read_model(files)
    how = Preprocessing.from_config(preprocessing)
    sets = [Normalised(read_images(Path(path)).pixels, how) for path in images]
    equalized = equalize_checked(network, prepare(network, "fold"), sets, threads=threads)
    for change in equalized.changes:
        spreads = change.spread_before, change.spread_after
        _LOG.info("%s -> %s: spread %.3g, now %.3g", change.first, change.second, *spreads)
    write_network(equalized.network, made)
    write_text(report, format_records(equalized.changes, Change))


def refine_weights(
    files: Sequence[str],
    table: str,
    searched: str | None,
    images: str,
    weights: str,
    changes: str,
    target: str | Mapping[str, str],
    options: Mapping[str, Any],
    preprocessing: Mapping[str, Any] | None,
    threads: int,
) -> None:
    """Correct the biases and choose the roundings of a prepared network.

    Parameters
    ----------
    files : Sequence[str]
        Those of the prepared network.
    table : str
        The calibration table that it is compiled with.
    searched : str or None
        Weights that a search has rounded by scales of its own.
    images : str
        Calibration images.
    weights, changes : str
        What is written: ``weights.steps.npz``, and what changed, layer by layer.
    target : str or Mapping
        The hardware, see `target_of`.
    options : Mapping
        ``mode``, ``correction`` and ``rounding``, as the variant says.
    preprocessing : Mapping or None
        Mean and scale of the pixels; None where the prepared network has them.
    threads : int
        Threads of onnxruntime.
    """
    from nvdla_quant.quantization.refine import Refined, refine
    from nvdla_quant.quantization.steps import read_weight_steps, write_weight_steps

    refinement = refine(
        read_model(files),
        read_table(Path(table)),
        target_of(target),
        QuantizationMode(options["mode"]),
        _inputs(images, preprocessing),
        correction=options["correction"],
        rounding=options["rounding"],
        searched=read_weight_steps(Path(searched)) if searched else None,
        threads=threads,
        progress=logs.log_progress("layers"),
    )
    _LOG.info("%d calibration images were looked at", refinement.images)
    write_weight_steps(refinement.steps, Path(weights))
    write_text(changes, format_records(refinement.layers, Refined))


def search_scales(
    files: Sequence[str],
    table: str,
    images: str,
    made: str,
    weights: str,
    report: str,
    target: str | Mapping[str, str],
    options: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    feeding: Mapping[str, Any],
    threads: int,
) -> None:
    """Search the scales of a variant by the results of its loadable.

    Parameters
    ----------
    files : Sequence[str]
        Those of the prepared network.
    table : str
        Its fixed calibration table.
    images : str
        Calibration images; the first `SEARCHED_IMAGES` are run.
    made, weights, report : str
        What is written: the table that was found, weights of scales that were found, and the moves that were kept.
    target : str or Mapping
        The hardware, see `target_of`.
    options : Mapping
        ``mode``, ``unify_scales``, ``objective`` and ``trials``.
    preprocessing : Mapping
        Mean and scale of the pixels.
    feeding : Mapping
        Precision and feeding, as the variant says.
    threads : int
        Threads of the emulator.
    """
    from nvdla_quant.compiler.lowering.price import Objective
    from nvdla_quant.quantization.search import Trial, fp32_scores, search
    from nvdla_quant.quantization.steps import write_weight_steps

    network, fixed = read_model(files), read_table(Path(table))
    how = Preprocessing.from_config(preprocessing)
    pixels = read_images(Path(images)).pixels[:SEARCHED_IMAGES]
    quantized_here = feeding["feeding"] == "quantized"
    inputs = Normalised(pixels, how)[:] if quantized_here else pixels.astype(np.float32)
    name = network.only_input.name
    found = search(
        network,
        fixed,
        target_of(target),
        QuantizationMode(options["mode"]),
        lambda table, channels: to_device(
            pixels, how, scale=table[name] if quantized_here else None, channels=channels, **feeding
        ),
        fp32_scores(network, inputs, threads),
        trials=options["trials"],
        unify_scales=options["unify_scales"],
        pinned=frozenset() if quantized_here else frozenset({name}),
        objective=Objective(options["objective"]),
        threads=threads,
        progress=logs.log_progress("trials"),
    )
    end = "nothing improves it any more" if found.settled else "all trials are used up (search_trials)"
    _LOG.info(
        "SQNR of the scores %.2f dB, now %.2f dB, after %d trials: %s", found.first, found.last, found.trials, end
    )
    write_table(found.table, Path(made))
    write_weight_steps(found.steps, Path(weights))
    write_text(report, format_records(found.kept, Trial))


def _inputs(images: str, preprocessing: Mapping[str, Any] | None) -> NDArray[np.float32]:
    """Return calibration images in the domain of the prepared network."""
    pixels = read_images(Path(images)).pixels
    if preprocessing is None:
        return pixels.astype(np.float32)
    inputs: Images = Normalised(pixels, Preprocessing.from_config(preprocessing))
    return inputs[0 : len(inputs)]
