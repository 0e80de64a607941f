"""From the configuration to the runtime and the device that it describes."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nvdla_quant.errors import EmulationError, LoadableError, WrongTargetError
from nvdla_quant.hardware.targets import Target
from nvdla_quant.jobs.logs import Progress
from nvdla_quant.jobs.programs import Program
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.runtime.base import Device, Runtime
from nvdla_quant.runtime.local import LocalDevice
from nvdla_quant.runtime.nvdla_runtime import NvdlaRuntime
from nvdla_quant.runtime.ssh import SshDevice
from nvdla_quant.runtime.stock_images import StockFeeding

_LOG = logging.getLogger(__name__)


def runtime_of(
    config: Mapping[str, Any], target: Target, feeding: StockFeeding, kept: Path, progress: Progress | None = None
) -> Runtime:
    """Return the runtime that ``backends.nvdla_runtime`` describes.

    Parameters
    ----------
    config : Mapping
        That section, defaults filled.
    target : Target
        What the loadables are for.
    feeding : StockFeeding
        What the runtime makes of pixels.
    kept : Path
        Folder for dumps that are done, see `NvdlaRuntime`.
    progress : callable, optional
        Called with the number of images that the device has done, and of all.
    """
    runtime = NvdlaRuntime(device_of(config, target), feeding, kept, target.name, progress)
    if "spot_check" not in config:
        return runtime
    # Here: most runs on a device do without the emulator.
    from nvdla_quant.runtime.emulator import EmulatorRuntime
    from nvdla_quant.runtime.spot_check import SpotCheck

    return SpotCheck(runtime, EmulatorRuntime(target), config["spot_check"])


def check_target(loadable: Path, target: Target) -> None:
    """Refuse a loadable that was made for another target: the device would give wrong bytes, or hang.

    Raises
    ------
    WrongTargetError
        See `program.decode`. What else the emulator refuses is not looked at: the device may run it.
    """
    # Here, as above.
    from nvdla_quant.emulator.decode.program import decode

    try:
        decode(read_loadable(loadable), target)
    except WrongTargetError:
        raise
    except (EmulationError, LoadableError) as error:
        _LOG.info("%s: not known to be for %s (%s)", loadable, target.name, error)


def device_of(config: Mapping[str, Any], target: Target) -> Device:
    """Return the device that ``backends.nvdla_runtime`` describes, for loadables of `target`."""
    path, limit = config["path"], config["time_limit"]
    match config["device"]:
        case "ssh":
            return SshDevice(path, limit, config["ssh"])
        case "virtual-platform":
            # Needs pexpect, an optional dependency.
            from nvdla_quant.runtime.virtual_platform import VirtualPlatform

            return VirtualPlatform(path, limit, target.name, config["virtual_platform"])
        case _:
            program = Program("backends.nvdla_runtime", path, config.get("container"), config["launcher"])
            return LocalDevice(program, limit)
