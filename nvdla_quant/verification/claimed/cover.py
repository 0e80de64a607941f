"""Whether a claim covers a loadable: each operation once, reading what is there, at scales that the table has."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.compiler.claim.records import Claim, Gathering, Joining, Piece, Place, Run, Weighting
from nvdla_quant.emulator.operations import ConvOperation, Operation, SdpOperation
from nvdla_quant.network.graph import Network, Pair
from nvdla_quant.network.views import viewed
from nvdla_quant.verification.claimed.pieces import taken
from nvdla_quant.verification.measures.examination import Fault, Subject

SAME_SCALE = 1e-6
"""Relative difference of a claimed scale and the table's entry that a file may cost."""


@dataclass(frozen=True, eq=False)
class Written:
    """A piece with its operations, which part of what it writes each makes, and height and width of that."""

    piece: Piece
    runs: tuple[tuple[Run, Operation], ...]
    size: Pair

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The operations, in order."""
        return tuple(operation for _, operation in self.runs)


class NotSoError(Exception):
    """A claim is not so; carries the fault out of the check."""

    def __init__(self, layer: str, operation: int | None, text: str) -> None:
        super().__init__(text)
        self.fault = Fault(layer, operation, text)


def cover(subject: Subject, prepared: Network, claim: Claim) -> Iterator[Written]:
    """Yield the pieces of a claim with the operations of the loadable.

    Parameters
    ----------
    subject : Subject
        What is examined.
    prepared : Network
        Its network, as `passes.for_hardware` leaves it.
    claim : Claim
        The claim.

    Raises
    ------
    NotSoError
        Some operation is claimed by nothing, twice or out of order; a piece reads what is not there, writes what is
        there already, or has other operations than it says; or a tensor of the network is not written as a whole.
    """
    operations = {operation.index: operation for operation in subject.program.operations}
    claimed = [run.operation for piece in claim.pieces for run in piece.runs]
    last = claim.pieces[-1].layers[-1] if claim.pieces else ""
    for number in operations.keys() - set(claimed):
        raise NotSoError(last, number, f"operation {number} is claimed by nothing")
    for before, after in pairwise([-1, *claimed]):
        if after <= before:
            raise NotSoError(_layer_of(claim, after), after, f"operation {after} is claimed twice, or out of order")
    there = {name: np.zeros(held.shape, np.bool_) for name, held in claim.tensors.items()}
    source = subject.network.only_input
    if source.name not in there or there[source.name].shape != source.chw:
        raise NotSoError(source.name, None, f"the network's input {source.name!r}, {size_of(source.chw)}, has no place")
    there[source.name][:] = True
    for piece in claim.pieces:
        yield _covering(piece, prepared, operations, there)
    for name, mask in there.items():
        # Gaps of tensors that are made on the way matter where they are read.
        if name in prepared.tensors and not mask.all():
            raise NotSoError(name, None, f"{np.count_nonzero(~mask)} of {mask.size} values of {name} are never written")
    for output in (viewed(prepared, tensor.name) for tensor in prepared.outputs):
        if claim.place_of(output) is None:
            raise NotSoError(output, None, f"the network's output {output!r} has no place")


def _layer_of(claim: Claim, number: int) -> str:
    return next(piece.layers[-1] for piece in claim.pieces if number in [one.operation for one in piece.runs])


def _covering(
    piece: Piece,
    prepared: Network,
    operations: Mapping[int, Operation],
    there: Mapping[str, NDArray[np.bool_]],
) -> Written:
    """Return a piece with its operations; mark what it writes as there."""
    first = piece.runs[0].operation
    layer = piece.layers[-1]

    def not_so(text: str, operation: int = first) -> NotSoError:
        return NotSoError(layer, operation, text)

    if unknown := [name for name in piece.layers if name not in prepared.by_name]:
        raise not_so(f"the network has no layer {unknown[0]!r}")
    reads = [piece.reads, *joined(piece)]
    for place in (*reads, piece.writes):
        if place.tensor not in there:
            raise not_so(f"there is no tensor {place.tensor!r}")
        if not _is_inside(place, there[place.tensor].shape):
            raise not_so(f"{where(place)} is not inside of {size_of(there[place.tensor].shape)}")
    for place in reads:
        missing = ~taken(there[place.tensor][None], place)[0]
        if place == piece.reads and piece.stages and isinstance(piece.stages[0], Gathering):
            # Zeros are the weights of all other channels.
            missing = missing[list(_gathered(piece.stages[0], len(missing)))]
        if missing.any():
            raise not_so(f"it reads {where(place)}, of which {np.count_nonzero(missing)} values are not written yet")
    mask = taken(there[piece.writes.tensor][None], piece.writes)[0]
    channels, *size = mask.shape
    runs = []
    for run in piece.runs:
        operation = operations.get(run.operation)
        if operation is None:
            raise not_so(f"the loadable has no operation {run.operation} that writes memory", run.operation)
        (row, rows), (column, columns) = run.rows, run.columns
        if min(row, column) < 0 or min(rows, columns) < 1 or row + rows > size[0] or column + columns > size[1]:
            raise not_so(f"rows {run.rows} and columns {run.columns} are beyond {size}", run.operation)
        if operation.destination.shape not in ((channels, rows, columns), (channels, rows * columns, 1)):
            shape = size_of(operation.destination.shape)
            expected = f"{channels}x{rows}x{columns}"
            raise not_so(f"operation {run.operation} writes {shape}, claimed are {expected}", run.operation)
        convolution = isinstance(operation, SdpOperation) and isinstance(operation.source, ConvOperation)
        if convolution != any(isinstance(stage, Weighting | Gathering) for stage in piece.stages):
            does = "a" if convolution else "no"
            raise not_so(f"operation {run.operation} has {does} convolution, which is not claimed", run.operation)
        part = mask[:, row : row + rows, column : column + columns]
        if part.any():
            raise not_so(f"operation {run.operation} writes what is written already", run.operation)
        part[:] = True
        runs.append((run, operation))
    if not mask.all():
        raise not_so(f"its operations leave {np.count_nonzero(~mask)} of {mask.size} values out")
    return Written(piece, tuple(runs), (size[0], size[1]))


def scale_faults(subject: Subject, prepared: Network, claim: Claim) -> Iterator[Fault]:
    """Yield tensors of the network whose claimed scale is neither their entry nor what the hardware keeps."""
    table, network = subject.table, subject.network
    if table is None:
        output = claim.tensors[network.only_input.name]
        if output.scale != 1:
            yield Fault(network.only_input.name, None, f"a 1 of the fp16 input is claimed to be {output.scale:.6g}")
        return
    kept = {
        piece.writes.tensor: piece.reads.tensor
        for piece in claim.pieces
        if prepared.by_name[piece.layers[-1]].kind == "Pooling"
    }
    for name, held in claim.tensors.items():
        if name in kept:
            expected, why = claim.tensors[kept[name]].scale, f"pooling keeps that of {kept[name]}"
        elif name in network.tensors:
            expected, why = table[name], "the table's entry"
        else:
            continue
        if abs(held.scale - expected) > SAME_SCALE * expected:
            yield Fault(
                name, None, f"a step of {name} is claimed to be {held.scale:.9g}, expected {expected:.9g}: {why}"
            )


def joined(piece: Piece) -> tuple[Place, ...]:
    """Return the places of the tensors that a piece joins."""
    return tuple(stage.reads for stage in piece.stages if isinstance(stage, Joining))


def _is_inside(place: Place, shape: tuple[int, ...]) -> bool:
    """Return whether a place has values, all of them in a tensor of this shape."""
    channels, height, width = shape
    (first, end), (row, down), (column, across) = place.channels, place.rows, place.columns
    if not (0 <= first < end <= channels and 0 <= row < height and 0 <= column < width and min(down, across) > 0):
        return False
    if place.size is None:
        return True
    rows, columns = place.size
    fits = row + (rows - 1) * down < height and column + (columns - 1) * across < width
    return min(rows, columns) > 0 and fits


def where(place: Place) -> str:
    """Return a place in a few words."""
    return f"{place.tensor}[{place.channels[0]}:{place.channels[1]}]"


def _gathered(stage: Gathering, channels: int) -> set[int]:
    """Return which of the channels that it reads a stage takes."""
    taken_ones = {first + index for _, first, count, _ in stage.places for index in range(count)}
    return {channel for channel in taken_ones if 0 <= channel < channels}


def size_of(shape: Sequence[int]) -> str:
    """Return a shape in a few words."""
    return "x".join(map(str, shape))
