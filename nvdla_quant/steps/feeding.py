"""Bring test images to the device's domain, and write what the device made of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nvdla_quant.images.preprocess import Preprocessing, to_device
from nvdla_quant.images.selection import read_images
from nvdla_quant.jobs.files import write_npz
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.runtime.base import Runtime, as_arrays
from nvdla_quant.table.table import read_table


def run_images(
    runtime: Runtime,
    loadable: str,
    images: str,
    table: str | None,
    dumps: str,
    preprocessing: Preprocessing,
    feeding: Mapping[str, Any],
) -> None:
    """Run a loadable on prepared test images where `runtime` says, and write the raw `dumps`.

    Parameters
    ----------
    runtime : Runtime
        An emulator or a device.
    loadable, images : str
        What runs, on what.
    table : str or None
        The calibration table, where the input is quantized with its scale of the input.
    dumps : str
        Where the output goes, in the device's domain.
    preprocessing : Preprocessing
        Mean and scale.
    feeding : Mapping
        Precision and feeding, as the variant says.
    """
    port = read_loadable(Path(loadable)).inputs[0]
    scale = read_table(Path(table))[port.name] if table else None
    chosen = read_images(Path(images))
    inputs = to_device(chosen.pixels, preprocessing, scale=scale, channels=port.c, **feeding)
    write_npz(dumps, as_arrays(runtime.run(Path(loadable), inputs), chosen.indices))
