"""Run loadables with NVIDIA's `nvdla_runtime`, image by image, on whatever device.

It prints ``Test pass`` and exits with 0 after errors, writes one fixed file, and takes the machine down now and then.
So a dump counts only if this run wrote it, whole, and the log holds no error; an image that kills the device costs only
itself; and every dump is kept as it comes, so that a run that is interrupted goes on where it was.
"""

import hashlib
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import DeviceLostError, DumpError, ToolError
from nvdla_quant.jobs.files import write_bytes
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.loadable.records import DataType, TensorDescriptor
from nvdla_quant.runtime.base import Device, DeviceRun, DeviceValues, RunResult
from nvdla_quant.runtime.dimg import read_dimg
from nvdla_quant.runtime.messages import SUBMIT_FAILED, faults, said
from nvdla_quant.runtime.stock_images import StockFeeding

_LOG = logging.getLogger(__name__)

ATTEMPTS = 2
"""Tries of each image, since what kills a device is often not the image."""
HOPELESS = 3
"""Images that may fail, from the first on, before the cause is taken to be common to all."""

_DTYPES: dict[int, type[np.int8] | type[np.float16]] = {DataType.INT8: np.int8, DataType.HALF: np.float16}


@dataclass(frozen=True)
class NvdlaRuntime:
    """`nvdla_runtime` as a backend.

    Attributes
    ----------
    device : Device
        Where it runs.
    feeding : StockFeeding
        What it makes of pixels.
    kept : Path
        Folder for dumps that are done, and marks of images that failed; removed by whoever has stored the result.
    target : str
        What the loadables are for, as messages name it.
    progress : callable or None
        Called with the number of images that are done, and of all.
    """

    device: Device
    feeding: StockFeeding
    kept: Path
    target: str
    progress: Callable[[int, int], None] | None = None
    name: str = field(default="nvdla_runtime", init=False)

    def run(self, loadable: Path, inputs: DeviceValues) -> RunResult:
        """Run the loadable; see `Runtime.run`. Images that the device died on are left out, see `RunResult.ran`.

        Raises
        ------
        ToolError
            The device is not there, does not come back, fails on the first images alike, or does not end the first task
            that it gets of this loadable.
        DatasetError
            The runtime cannot feed these inputs.
        """
        content = read_loadable(loadable)
        if len(content.inputs) != 1:
            raise ToolError(f"{loadable}: {len(content.inputs)} inputs, nvdla_runtime runs loadables of one input")
        if len(content.outputs) != 1:
            names = ", ".join(output.name for output in content.outputs) or "none"
            raise ToolError(
                f"{loadable}: the outputs are {names}, expected exactly one: nvdla_runtime writes output 0 alone into "
                "its dump; run it on the emulator, or compile a network of one output"
            )
        port, output = content.inputs[0], content.outputs[0]
        if output.data_type not in _DTYPES:
            raise ToolError(f"{loadable}: output {output.name!r} is neither int8 nor fp16")
        files = [self.feeding.encode(image) for image in self.feeding.pixels(inputs)]
        fed: NDArray[Any] = np.stack([self.feeding.fed(file, inputs.shape[1]) for file in files])
        if fed.shape[2:] != (port.h, port.w):
            raise ToolError(f"{loadable}: reads {port.h} x {port.w} pixels, the images have {fed.shape[2:]}")
        results = self._collect(loadable, output, files)
        shape = (output.c, output.h, output.w)
        values: NDArray[Any] = np.zeros((len(files), *shape), _DTYPES[output.data_type])
        for number, dump in results.items():
            values[number] = dump
        ran = np.isin(np.arange(len(files)), list(results))
        exact = np.array_equal(fed, inputs)
        exactness = f"device: {self.device.name}" + ("" if exact else ", images through JPEG (values fed are recorded)")
        return RunResult({output.name: values}, None, self._where, exactness, ran=ran, fed=None if exact else fed)

    @property
    def _where(self) -> str:
        return f"{self.name} ({self.device.name})"

    def _collect(self, loadable: Path, output: TensorDescriptor, files: list[bytes]) -> dict[int, NDArray[Any]]:
        """Return the dumps by image: those that were kept, then those of the device."""
        key = hashlib.sha256(loadable.read_bytes())
        for part in (*files, repr(self.feeding).encode()):
            key.update(hashlib.sha256(part).digest())
        folder = self.kept / key.hexdigest()[:16]
        results = {}
        for number in range(len(files)):
            if (folder / f"{number:06d}.dimg").is_file():
                results[number] = _read(folder / f"{number:06d}.dimg", output)
        if results:
            _LOG.info("%s: %d of %d images were done before", self._where, len(results), len(files))
        # What failed before comes last: where it kills the device, the others show first that this loadable runs there.
        missing = [number for number in range(len(files)) if number not in results]
        missing.sort(key=lambda number: (folder / f"{number:06d}.failed").exists())
        if not missing:
            return results
        failures: list[str] = []
        with self.device, tempfile.TemporaryDirectory() as name:
            work = Path(name)
            (work / "loadable.nvdla").write_bytes(loadable.read_bytes())
            image = work / f"image{self.feeding.suffix}"
            fresh = True
            for number in missing:
                image.write_bytes(files[number])
                for attempt in range(ATTEMPTS):
                    running = False
                    try:
                        if fresh:
                            self.device.put(work / "loadable.nvdla")
                            fresh = False
                        self.device.put(image)
                        running = True
                        dump = self._one(image.name, work, output)
                    except (DeviceLostError, DumpError) as error:
                        failure = f"image {number}, attempt {attempt + 1}: {error}"
                        _LOG.warning("%s: %s", self._where, failure)
                        write_bytes(folder / f"{number:06d}.failed", f"{failure}\n".encode())
                        if isinstance(error, _SuspiciousError) and not results:
                            raise ToolError(f"{self._where}: {failure}; {self._question()}") from error
                        if isinstance(error, DeviceLostError):
                            self.device.recover()
                            fresh = True
                        continue
                    write_bytes(folder / f"{number:06d}.dimg", dump)
                    results[number] = _read(folder / f"{number:06d}.dimg", output)
                    break
                else:
                    failures.append(failure)
                if len(failures) >= min(HOPELESS, len(files)) and not results:
                    asked = f"; {self._question()}" if fresh and running else ""
                    raise ToolError(
                        f"{self._where}: the first {len(failures)} images all failed; the last: {failure}{asked}"
                    )
                if self.progress is not None:
                    self.progress(len(results) + len(failures), len(files))
        return results

    def _question(self) -> str:
        """Return what to ask where a loadable has not run on this device yet, and its tasks do not end."""
        return (
            f"no image has run with this loadable yet: is this board another configuration than {self.target}? (The "
            "kernel's log says which, where the driver was loaded: `Probe NVDLA config ...`.) If it is the right one, "
            "start again, with a longer backends.nvdla_runtime.time_limit where it is slow: this image then comes last"
        )

    def _one(self, image: str, work: Path, output: TensorDescriptor) -> bytes:
        """Return the dump of one run, after it was found to be whole.

        Raises
        ------
        DumpError
            The runtime failed on this image.
        DeviceLostError
            It hangs, or the device does not answer.
        """
        arguments = ["--loadable", "loadable.nvdla", "--image", image, "--rawdump", *self.feeding.options()]
        done = self.device.run(arguments)
        if done.status is None:
            raise _TimeLimitError(f"no end within {self.device.time_limit:g} s; it said: {said(done.text)}")
        if faults(done.text):
            failed = _SubmitError if SUBMIT_FAILED.search(done.text) else DumpError
            raise failed(f"exit status {done.status}; it said: {said(done.text)}")
        if done.dump is None:
            raise DumpError(f"exit status {done.status}, but no output.dimg; it said: {said(done.text)}")
        written = work / "output.dimg"
        written.write_bytes(done.dump)
        _read(written, output)
        if done.status:
            _accept(done)
        return done.dump


class _SuspiciousError(Exception):
    """What a loadable for other hardware does as well: its task does not end."""


class _TimeLimitError(DeviceLostError, _SuspiciousError):
    """The time limit was reached."""


class _SubmitError(DumpError, _SuspiciousError):
    """The kernel gave the task back."""


def _read(path: Path, output: TensorDescriptor) -> NDArray[Any]:
    return read_dimg(path, shape=(output.c, output.h, output.w), dtype=_DTYPES[output.data_type])


def _accept(done: DeviceRun) -> None:
    """Take a whole dump where the runtime failed only after it had said that it was through."""
    if "Test pass" not in done.text:
        raise DumpError(f"exit status {done.status} without `Test pass`; it said: {said(done.text)}")
    _LOG.warning("nvdla_runtime: exit status %s after a whole dump and `Test pass`: taken", done.status)
