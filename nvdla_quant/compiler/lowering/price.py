"""What a division of the convolution buffer costs, by what the user wants least of."""

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from itertools import product

from nvdla_quant.compiler.lowering.tile import rows_joined
from nvdla_quant.hardware.cbuf import Division, Price, Work, ceil_div, moved_bytes, round_up
from nvdla_quant.hardware.targets import Target
from nvdla_quant.timing.cost import cost
from nvdla_quant.timing.memory import memory_of
from nvdla_quant.timing.records import Convolution, Point

OPERANDS = 4
"""Bytes that the SDP reads for each kernel: a bias and a multiplier."""


class Objective(StrEnum):
    """What is to be least."""

    CYCLES = "cycles"
    BYTES = "bytes"


def estimated_cycles(target: Target, work: Work, division: Division) -> float:
    """Return the cycles of all runs of a division, one after the other, with the memory that is taken by default."""
    memory = memory_of(target)
    parts = [min(division.kernels, work.kernels - first) for first in range(0, work.kernels, division.kernels)]
    rows = Counter((span.inputs, span.count) for span in division.rows)
    columns = Counter((span.inputs, span.count) for span in division.columns)
    return sum(
        of_rows
        * of_columns
        * of_kernels
        * cost(target, memory, _run(target, work, division, kernels, down, across)).cycles
        for (down, of_rows), (across, of_columns), (kernels, of_kernels) in product(
            rows.items(), columns.items(), Counter(parts).items()
        )
    )


def _run(
    target: Target, work: Work, division: Division, kernels: int, down: tuple[int, int], across: tuple[int, int]
) -> Convolution:
    """Return one run: `kernels` of the kernels, on inputs and outputs along the height and the width."""
    (lines, height), (columns, width) = down, across
    atom, size = target.feature_atom_bytes, work.element_bytes
    atoms = 1 if work.image else ceil_div(division.channels * size, atom)
    line = round_up(columns * work.channels * size, atom) if work.image else columns * atoms * atom
    words = ceil_div(work.channels * work.kernel[1] if work.image else division.channels, target.atomic_c)
    taps = ceil_div(work.kernel[0], 1 << rows_joined(target, work)) * (1 if work.image else work.kernel[1])
    kernel_bytes = division.channels * work.kernel[0] * work.kernel[1] * size
    written = round_up(kernels, atom // size)
    values = written * height * width
    return Convolution(
        lines=lines,
        width=columns,
        atoms=atoms,
        data_bytes=lines * line,
        weight_bytes=round_up(kernels * kernel_bytes, target.cbuf_entry_bytes),
        room_bytes=division.weights * target.cbuf_bank_bytes,
        kernels=kernels,
        kernel_bytes=kernel_bytes,
        steps=taps * words,
        rows=height if work.image else 1,
        row=width if work.image else height * width,
        image=work.image,
        element_bytes=size,
        behind=Point(values, size, 0, OPERANDS * written, values * size),
    )


PRICES: Mapping[Objective, Price] = {Objective.CYCLES: estimated_cycles, Objective.BYTES: moved_bytes}
"""How each objective is measured."""
