"""Run a loadable on the emulator."""

from collections.abc import Mapping
from typing import Any

from nvdla_quant.hardware.spec import target_of
from nvdla_quant.images.preprocess import Preprocessing
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
    part: Mapping[str, int],
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
    part : Mapping
        Which shard of how many; a sample of the images is also run exactly, its share of it in each.
    threads : int
        Threads that share the images.
    """
    from nvdla_quant.emulator.operations import Fp16
    from nvdla_quant.runtime.emulator import EmulatorRuntime, sample_size

    fp16, batch, sample = Fp16(emulator["fp16"]), emulator.get("batch_size"), sample_size(**part)
    hardware = target_of(target)
    progress = logs.log_progress(hardware.name)
    runtime = EmulatorRuntime(hardware, threads, batch, progress, fp16, sample)
    run_images(runtime, loadable, images, table, dumps, Preprocessing.from_config(preprocessing), feeding)
