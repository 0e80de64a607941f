"""Run a loadable on the emulator."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nvdla_quant.hardware.spec import target_of
from nvdla_quant.images.preprocess import Preprocessing
from nvdla_quant.images.selection import read_images
from nvdla_quant.images.sets import part_of
from nvdla_quant.jobs import logs
from nvdla_quant.steps.feeding import run_images


def run_loadable(
    loadable: str,
    images: str,
    table: str | None,
    dumps: str,
    target: str | Mapping[str, str],
    preprocessing: Mapping[str, Any],
    feeding: Mapping[str, Any],
    emulator: Mapping[str, Any],
    threads: int,
) -> None:
    """Run a loadable as `feeding.run_images` does, on the emulator.

    Parameters
    ----------
    loadable, images, table, dumps, preprocessing, feeding
        See `run_images`.
    target : str or Mapping
        The hardware, see `target_of`.
    emulator : Mapping
        ``emulator`` of the configuration.
    threads : int
        Threads that share the images.
    """
    from nvdla_quant.emulator.operations import Fp16
    from nvdla_quant.runtime.emulator import EmulatorRuntime, sample_of

    fp16, batch = Fp16(emulator["fp16"]), emulator.get("batch_size")
    selection = read_images(Path(images)).manifest["selection"]
    count = selection["test_images"]
    sample = sample_of(count, *part_of(count, selection["shard"], selection["shards"]))
    hardware = target_of(target)
    runtime = EmulatorRuntime(hardware, threads, batch, logs.log_progress(hardware.name), fp16, sample)
    run_images(runtime, loadable, images, table, dumps, Preprocessing.from_config(preprocessing), feeding)
