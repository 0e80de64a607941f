"""Run a decoded program on batches of images, and keep what each operation wrote."""

import threading
import weakref
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from nvdla_quant.emulator.cpu import run_cpu
from nvdla_quant.emulator.decode.program import Program
from nvdla_quant.emulator.fp16.cdp import normalise_halves
from nvdla_quant.emulator.fp16.pdp import pool_halves
from nvdla_quant.emulator.fp16.run import PreparedHalves, prepare_halves, run_halves
from nvdla_quant.emulator.integer.cdp import normalise
from nvdla_quant.emulator.integer.pdp import pool_bytes, pool_values
from nvdla_quant.emulator.integer.sdp_run import PreparedSdp, ReadWindow, prepare_sdp, run_sdp
from nvdla_quant.emulator.memory import DeviceMemory, Values
from nvdla_quant.emulator.moves import run_bdma, run_rubik
from nvdla_quant.emulator.operations import (
    BdmaOperation,
    CdpOperation,
    CpuOperation,
    Fp16,
    Operation,
    PdpOperation,
    RubikOperation,
    SdpOperation,
)
from nvdla_quant.emulator.tiles import Workspace
from nvdla_quant.errors import EmulationError
from nvdla_quant.hardware.targets import Precision, Target
from nvdla_quant.jobs.files import atomic_path, write_json
from nvdla_quant.loadable.tasks import Window

CHUNK_BYTES = 64 << 20
"""Device memory of the images that run together, unless the caller says how many: far below any machine's memory."""
MAX_CHUNK_IMAGES = 256
"""More images than this in one chunk gain nothing."""

OnStep = Callable[[Operation, Values, int], None]
"""Called with an operation, what it wrote ``(n, c, h, w)``, and the number of the first image."""


def run(
    program: Program,
    inputs: Values,
    *,
    fp16: Fp16 = Fp16.EXACT,
    batch: int | None = None,
    threads: int = 1,
    on_step: OnStep | None = None,
    steps: Collection[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Values:
    """Run a program of one input and one output.

    Parameters
    ----------
    program : Program
        What `decode` returned.
    inputs : NDArray[np.int8] or NDArray[np.float16]
        ``(n, c, h, w)`` in the device's domain, c, h and w as in the loadable's tensor descriptor. Where that has a
        batch, n is a multiple of it.
    fp16 : Fp16
        How operations in fp16 are computed; integer ones are always exact.
    batch : int, optional
        Images that run together; the default bounds the memory. Results do not depend on it.
    threads : int
        Threads that share the images; results do not depend on it.
    on_step : callable, optional
        See `OnStep`; called from one thread at a time, but with several threads in any order of the images.
    steps : Collection[int], optional
        Numbers of the operations that `on_step` is called for; default: all.
    progress : callable, optional
        Called with the number of images that are done, and of all.

    Returns
    -------
    NDArray[np.int8] or NDArray[np.float16]
        ``(n, c, h, w)`` in the device's domain.

    Raises
    ------
    EmulationError
        The program has several inputs or outputs (see `run_tensors`), or `inputs` has another shape or type.
    """
    if len(program.inputs) != 1 or len(program.outputs) != 1:
        raise EmulationError(
            f"the program has {len(program.inputs)} inputs and {len(program.outputs)} outputs: use run_tensors"
        )
    named = {program.inputs[0].name: inputs}
    outputs = run_tensors(
        program, named, fp16=fp16, batch=batch, threads=threads, on_step=on_step, steps=steps, progress=progress
    )
    return outputs[program.outputs[0].name]


def run_tensors(
    program: Program,
    inputs: Mapping[str, Values],
    *,
    fp16: Fp16 = Fp16.EXACT,
    batch: int | None = None,
    threads: int = 1,
    on_step: OnStep | None = None,
    steps: Collection[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Values]:
    """Run a program; `inputs` and the result go by tensor name. See `run`."""
    images = _check_inputs(program, inputs)
    names = program.output_names
    if len(set(names)) < len(names):
        raise EmulationError(f"the loadable's outputs are {', '.join(names)}: two of one name, by which results go")
    if threads < 1 or (batch is not None and batch < 1):
        raise EmulationError(f"batch is {batch} and threads is {threads}, expected at least 1 each")
    outputs: dict[str, Values] = {
        port.name: np.empty((images * port.cube.batch, *port.shape), port.dtype) for port in program.outputs
    }
    if batch is None:
        most = min(max(CHUNK_BYTES // max(program.image_bytes, 1), 1), MAX_CHUNK_IMAGES)
        # As many chunks for each thread, and all about as large: none waits for the last one.
        rounds = -(-images // (most * threads))
        batch = -(-images // (rounds * threads))
    prepared = _prepared(program, fp16)
    done = 0
    lock = threading.Lock()
    local = threading.local()

    def work(first: int) -> None:
        nonlocal done
        count = min(batch, images - first)
        memory = getattr(local, "memory", None)
        if memory is None or memory.images != count or program.image_bytes > CHUNK_BYTES:
            local.workspace = getattr(local, "workspace", Workspace())
            # Of large memory, which strides may leave mostly unused, fresh zeros cost only what is used.
            memory = local.memory = None
            memory = local.memory = DeviceMemory(program.regions, count)
        else:
            memory.reset()
        for port in program.inputs:
            place = slice(first * port.cube.batch, (first + count) * port.cube.batch)
            memory.scatter(port.cube, inputs[port.name][place])
        for operation in program.operations:
            _execute(operation, program.target, fp16, prepared, memory, local.workspace)
            if on_step is not None and (steps is None or operation.index in steps):
                values = memory.gather(operation.destination, operation.dtype)
                with lock:
                    on_step(operation, values, first * operation.destination.batch)
        for port in program.outputs:
            place = slice(first * port.cube.batch, (first + count) * port.cube.batch)
            outputs[port.name][place] = memory.gather(port.cube, port.dtype)
        with lock:
            done += count
            if progress is not None:
                progress(done, images)

    with _one_blas_thread():
        firsts = range(0, images, batch)
        if threads == 1 or len(firsts) < 2:
            for first in firsts:
                work(first)
        else:
            with ThreadPoolExecutor(threads) as pool:
                for future in [pool.submit(work, first) for first in firsts]:
                    future.result()
    return outputs


def write_steps(
    program: Program,
    inputs: Mapping[str, Values],
    folder: Path,
    *,
    fp16: Fp16 = Fp16.EXACT,
    layers: Mapping[int, tuple[str, float | None]] | None = None,
    batch: int | None = None,
) -> None:
    """Run a program and write what each operation wrote.

    Parameters
    ----------
    program, inputs, fp16, batch
        See `run_tensors`.
    folder : Path
        For each operation ``op000_dst.npy``, ``(n, c, h, w)`` in the device's domain, where 000 is its number in the
        loadable (a convolution has one too, but the SDP operation behind it writes); and ``steps.json``: name, file,
        unit, type, shape of one image, layer and scale.
    layers : Mapping[int, tuple[str, float or None]], optional
        Layer and scale (real value of one int8 step) of operations, where the caller knows them.
    """
    known = layers or {}
    entries = [
        {
            "name": f"op{operation.index:03d}_dst",
            "file": f"op{operation.index:03d}_dst.npy",
            "unit": operation.unit,
            "type": operation.dtype.name,
            "shape": list(operation.destination.shape),
            "layer": known.get(operation.index, (None, None))[0],
            "scale": known.get(operation.index, (None, None))[1],
        }
        for operation in program.operations
    ]
    runs = _check_inputs(program, inputs)
    with ExitStack() as stack:
        arrays = {}
        for operation, entry in zip(program.operations, entries, strict=True):
            path = stack.enter_context(atomic_path(folder / str(entry["file"])))
            shape = runs * operation.destination.batch, *operation.destination.shape
            arrays[operation.index] = np.lib.format.open_memmap(path, "w+", str(entry["type"]), shape)

        def keep(operation: Operation, values: Values, first: int) -> None:
            arrays[operation.index][first : first + len(values)] = values

        run_tensors(program, inputs, fp16=fp16, batch=batch, on_step=keep)
        for array in arrays.values():
            array.flush()
    write_json(folder / "steps.json", entries)


def _check_inputs(program: Program, inputs: Mapping[str, Values]) -> int:
    names = {port.name for port in program.inputs}
    if set(inputs) != names:
        raise EmulationError(f"inputs {sorted(inputs)} given, the loadable has {sorted(names)}")
    counts = set()
    for port in program.inputs:
        values = inputs[port.name]
        if values.ndim != 4 or values.shape[1:] != port.shape or values.dtype != port.dtype:
            expected = ", ".join(map(str, ("n", *port.shape)))
            raise EmulationError(
                f"input {port.name!r}: {values.dtype} of shape {values.shape}, expected {port.dtype} of ({expected})"
            )
        if len(values) % port.cube.batch:
            raise EmulationError(
                f"input {port.name!r}: {len(values)} images, expected a multiple of {port.cube.batch}, which the "
                "loadable takes at once"
            )
        counts.add(len(values) // port.cube.batch)
    if not program.inputs:
        return 1
    if len(counts) != 1:
        raise EmulationError(f"inputs are of {sorted(counts)} inferences, expected the same number")
    images = counts.pop()
    if images == 0:
        raise EmulationError("the inputs hold no images, expected at least one")
    return images


_Prepared = Mapping[int, PreparedSdp | PreparedHalves]
_programs: "weakref.WeakKeyDictionary[Program, dict[Fp16, _Prepared]]" = weakref.WeakKeyDictionary()
_programs_lock = threading.Lock()


def _prepared(program: Program, fp16: Fp16) -> _Prepared:
    """Return the unpacked weights and operands of `program`, by operation; they are made once for each mode."""
    with _programs_lock:
        modes = _programs.setdefault(program, {})
        if fp16 not in modes:
            modes[fp16] = {
                operation.index: _prepare(operation, program.constant, program.target, fp16)
                for operation in program.operations
                if isinstance(operation, SdpOperation) and operation.index not in program.computed
            }
        return modes[fp16]


def _prepare(operation: SdpOperation, read: ReadWindow, target: Target, fp16: Fp16) -> PreparedSdp | PreparedHalves:
    if operation.precision is Precision.FP16:
        return prepare_halves(operation, read, target, fp16)
    return prepare_sdp(operation, read, target)


def _run_computed(
    operation: SdpOperation, target: Target, fp16: Fp16, memory: DeviceMemory, workspace: Workspace
) -> None:
    """Run an operation whose weights or arrays of operands the program itself writes: image by image."""
    for image in range(memory.images):
        one = memory.one(image)

        def read(window: Window, one: DeviceMemory = one) -> NDArray[np.uint8]:
            raw = one.bytes_of(window.memory)[0, window.offset : window.offset + window.size]
            return raw.view(np.uint8)

        _run_sdp(_prepare(operation, read, target, fp16), one, workspace)


def _run_sdp(ready: PreparedSdp | PreparedHalves, memory: DeviceMemory, workspace: Workspace) -> None:
    if isinstance(ready, PreparedSdp):
        run_sdp(ready, memory, workspace)
    else:
        run_halves(ready, memory, workspace)


def run_operation(operation: Operation, target: Target, memory: DeviceMemory) -> None:
    """Run one operation on `memory`, fp16 bit for bit; weights and arrays of operands are taken from there too."""
    with _one_blas_thread():
        _execute(operation, target, Fp16.EXACT, {}, memory, Workspace())


def _execute(
    operation: Operation,
    target: Target,
    fp16: Fp16,
    prepared: _Prepared,
    memory: DeviceMemory,
    workspace: Workspace,
) -> None:
    if isinstance(operation, SdpOperation):
        if operation.index in prepared:
            _run_sdp(prepared[operation.index], memory, workspace)
        else:
            _run_computed(operation, target, fp16, memory, workspace)
    elif isinstance(operation, PdpOperation) and operation.parts:
        for part in operation.parts:
            _execute(part, target, fp16, prepared, memory, workspace)
    elif isinstance(operation, PdpOperation) and operation.precision is Precision.INT8:
        source = memory.bytes_of(operation.source.memory)
        if operation.source.overlaps(operation.destination):
            source = source.copy()
        pool_bytes(operation, source, memory.bytes_of(operation.destination.memory))
    elif isinstance(operation, RubikOperation):
        run_rubik(operation, memory)
    elif isinstance(operation, BdmaOperation):
        run_bdma(operation, memory)
    else:
        values = memory.gather(operation.source, operation.dtype)
        memory.scatter(operation.destination, _compute(operation, values))


def _compute(operation: PdpOperation | CdpOperation | CpuOperation, values: Values) -> Values:
    if isinstance(operation, CpuOperation):
        return run_cpu(operation, values)
    halves = operation.precision is Precision.FP16
    if isinstance(operation, PdpOperation):
        return pool_halves(operation, values) if halves else pool_values(operation, values)
    return normalise_halves(operation, values) if halves else normalise(operation, values)


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def _one_blas_thread() -> AbstractContextManager[object]:
    """Keep matrix products on the calling thread: images are what is shared out, and nested threads only contend."""
    limiter: AbstractContextManager[object] = _controller().limit(limits=1, user_api="blas")
    return limiter
