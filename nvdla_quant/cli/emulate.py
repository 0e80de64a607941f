"""``nvdla-quant emulate``."""

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from nvdla_quant.cli.options import LoadableFile, MaxMacs, MaxMemory, RunTarget, bar_of, read_array
from nvdla_quant.cli.ports import file_or_folder, places_of, sources_of
from nvdla_quant.emulator.decode.program import DEFAULT_LIMITS, Limits, decode, default_target
from nvdla_quant.emulator.operations import Fp16
from nvdla_quant.emulator.run import run_tensors, write_steps
from nvdla_quant.errors import EmulationError
from nvdla_quant.hardware.spec import target_of
from nvdla_quant.hardware.targets import Precision
from nvdla_quant.jobs.files import atomic_path
from nvdla_quant.loadable.reader import read_loadable
from nvdla_quant.runtime.dimg import write_dimg_text
from nvdla_quant.runtime.emulator import FP16_EXACTNESS


def command(
    loadable: LoadableFile,
    input_file: Annotated[
        Path,
        typer.Option(
            "--input",
            callback=file_or_folder,
            help="[N, C, H, W] int8, int16 or float16, device's domain; of a loadable with several inputs a folder "
            "that has NAME.npy of each.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            help="The .npy to write, [N, C, H, W] in the device's domain; of a loadable with several outputs a folder, "
            "which gets NAME.npy of each."
        ),
    ],
    steps: Annotated[Path | None, typer.Option(help="Folder for the output of every operation.")] = None,
    rawdump: Annotated[
        Path | None,
        typer.Option(
            help="Also write image 0 as nvdla_runtime's --rawdump does; of several outputs into a folder, as NAME.dimg."
        ),
    ] = None,
    configtarget: RunTarget = None,
    fp16: Annotated[
        Fp16, typer.Option(help="exact: the hardware's bits; fast: convolutions summed in float32, much faster.")
    ] = Fp16.EXACT,
    max_macs: MaxMacs = DEFAULT_LIMITS.macs,
    max_memory: MaxMemory = DEFAULT_LIMITS.memory,
) -> None:
    """Run a loadable as the hardware would."""
    content = read_loadable(loadable)
    target = target_of(configtarget) if configtarget else default_target(content)
    program = decode(content, target, Limits(max_macs, max_memory))
    if not program.inputs or not program.outputs:
        raise EmulationError(
            f"{loadable}: {len(program.inputs)} inputs and {len(program.outputs)} outputs, expected one or more of each"
        )
    names = program.output_names
    files = places_of(output, names, "--output", ".npy")
    dumps = [] if rawdump is None else places_of(rawdump, names, "--rawdump", ".dimg")
    given = [port.name for port in program.inputs]
    places = sources_of(input_file, given)
    images = {name: read_array(path) for name, path in zip(given, places, strict=True)}
    with bar_of("images") as bar:
        task = bar.add_task("images", total=len(images[given[0]]))
        progress = lambda done, total: bar.update(task, completed=done, total=total)  # noqa: E731
        results = run_tensors(program, images, fp16=fp16, progress=progress)
    for warning in program.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if steps is not None:
        write_steps(program, images, steps, fp16=fp16)
    for name, dump in zip(names, dumps, strict=False):  # Without --rawdump there is none.
        write_dimg_text(dump, results[name][0])
    for name, path in zip(names, files, strict=True):
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, results[name])
        if len(names) > 1:
            print(f"output {name}: {path}", file=sys.stderr)
    print(f"target: {target.name}{'' if configtarget else ' (from the loadable)'}", file=sys.stderr)
    if program.precision is Precision.FP16:
        print(f"fp16: {FP16_EXACTNESS[fp16]}", file=sys.stderr)
