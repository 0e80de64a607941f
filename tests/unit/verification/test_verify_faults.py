"""Faults are found: whatever is changed in a loadable, and whatever a claim says that is not so.

Each change is made to a random operation of each network of the gallery, compiled in one of all ways. Where it changes
what an operation writes by more than rounding, the verdict names the first operation that writes something else; a
claim is never believed.
"""

import itertools
import json
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
from numpy.typing import NDArray

from nvdla_quant.compiler.claim.file import claim_as_json, claim_from_json
from nvdla_quant.compiler.claim.records import Claim, Gathering, Piece, Rectifying, Stage, Weighting, Whole
from nvdla_quant.emulator.decode.program import Program
from nvdla_quant.emulator.operations import ConvOperation, Operation, PdpOperation, SdpOperation
from nvdla_quant.errors import ClaimError, NvdlaQuantError
from nvdla_quant.loadable import structs
from nvdla_quant.loadable.structs import Engine, PoolMode
from nvdla_quant.loadable.tasks import Window
from nvdla_quant.network.graph import LRN, Convolution, InnerProduct, Network, Pooling, Scale
from nvdla_quant.network.passes import for_hardware
from nvdla_quant.verification.judgement.verdicts import Judgement
from tests.networks import GALLERY
from tests.profiles import has_turn, is_long
from tests.unit.verification.test_gallery import VARIANTS, compiled
from tests.verified import Case, first_change, with_bytes, with_field, written

Change = Callable[[Case, Program, random.Random], Case | None]
"""Returns a case with one thing changed; None where it has nothing of the kind."""


def drawn(program: Program, rng: random.Random, of_kind: Callable[[Operation], bool]) -> Operation | None:
    """An operation of this kind of the first task, which is most of every program."""
    first = list(itertools.takewhile(lambda operation: operation.unit != "EMU", program.operations))
    found = [operation for operation in first if of_kind(operation)]
    return rng.choice(found) if found else None


def is_convolution(operation: Operation) -> bool:
    return isinstance(operation, SdpOperation) and isinstance(operation.source, ConvOperation)


def in_constants(case: Case, window: Window, place: int, change: Callable[[int, bytearray], None]) -> Case:
    """`case` with the constants at byte `place` of `window` changed."""
    memory = next(memory for memory in case.loadable.memories if memory.id == window.memory)
    blobs = {blob.name: blob.data for blob in case.loadable.blobs}
    for name, offset in zip(memory.contents, memory.offsets, strict=True):
        inside = window.offset + place - offset
        if 0 <= inside < len(blobs[name]):
            return with_bytes(case, name, partial(change, inside))
    raise AssertionError("constants stand in a blob")


def flipped(place: int, content: bytearray) -> None:
    content[place] ^= 0x40


def a_weight(case: Case, program: Program, rng: random.Random) -> Case | None:
    operation = drawn(program, rng, is_convolution)
    if not isinstance(operation, SdpOperation) or not isinstance(operation.source, ConvOperation):
        return None
    window = operation.source.weights
    place = rng.randrange(window.size)
    return in_constants(case, window, place | 1 if case.table is None else place, flipped)


def an_operand(case: Case, program: Program, rng: random.Random) -> Case | None:
    """A bias or a multiplier."""
    arrays = [
        operand.array
        for operation in program.operations
        if isinstance(operation, SdpOperation)
        for unit in operation.units
        for operand in (unit.alu_operand, unit.mul_operand)
        if operand is not None and operand.array is not None
    ]
    if not arrays:
        return None
    array = rng.choice(arrays)
    place = rng.randrange(array.window.size) | 1
    return in_constants(case, array.window, place, flipped)


def field_of(kind: Callable[[Operation], bool], path: str, value: Callable[[int], int], feeder: bool = False) -> Change:
    """Set a field of an operation, or of the convolution that feeds it, to what `value` makes of it."""

    def change(case: Case, program: Program, rng: random.Random) -> Case | None:
        operation = drawn(program, rng, kind)
        if operation is None:
            return None
        engine = Engine.PDP if isinstance(operation, PdpOperation) else Engine.SDP
        index = operation.index
        if feeder:
            assert isinstance(operation, SdpOperation)
            assert isinstance(operation.source, ConvOperation)
            engine, index = Engine.CONV, operation.source.index
        content = next(blob.data for blob in case.loadable.blobs if blob.name == "task-0-op_list")
        record = np.frombuffer(content, structs.OPERATIONS[engine], 1, index * structs.OPERATION_BYTES)[0]
        for name in path.split("."):
            record = record[name]
        new = value(int(record))
        return None if new == int(record) else with_field(case, index, engine, path, new)

    return change


def is_pooling(operation: Operation) -> bool:
    return isinstance(operation, PdpOperation)


def is_sdp(operation: Operation) -> bool:
    return isinstance(operation, SdpOperation)


CHANGES: dict[str, Change] = {
    "a weight": a_weight,
    "a bias or multiplier": an_operand,
    "a shift": field_of(is_sdp, "x1_op.truncate", lambda bits: bits - 1 if bits else 1),
    "the scale of a result": field_of(is_sdp, "out_cvt.scale", lambda scale: scale + 1 + scale // 20),
    "the shift of a result": field_of(is_sdp, "out_cvt.truncate", lambda bits: bits + 1),
    "an activation": field_of(is_sdp, "x1_op.act", lambda act: 0 if act else 1),
    "the scale of an input": field_of(is_convolution, "in_cvt.truncate", lambda bits: bits + 1, feeder=True),
    "padding": field_of(is_convolution, "pad_x_left", lambda pad: pad + 1, feeder=True),
    "the kind of a pooling": field_of(
        is_pooling, "pool_mode", lambda mode: PoolMode.MIN if mode == PoolMode.MAX else PoolMode.MAX
    ),
    "the window of a pooling": field_of(is_pooling, "pool_height", lambda height: height - 1 if height else 1),
}


def one_of(name: str) -> Case | None:
    """The network compiled in one of all ways, which follows from its name: it is compiled once for all changes."""
    return compiled(name, random.Random(zlib.crc32(name.encode())).choice(list(VARIANTS)))


@cache
def written_unchanged(name: str) -> dict[int, NDArray[np.float64]]:
    case = one_of(name)
    assert case is not None
    return written(case)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        (name, what)
        for (i, name), (j, what) in itertools.product(enumerate(GALLERY), enumerate(CHANGES))
        if has_turn(i + j, 10)
    ],
)
def test_what_changes_a_result_is_found_where_it_is(name: str, what: str) -> None:
    """In the short form each network has one of the changes, the next network the next: five networks for each."""
    rng = random.Random(zlib.crc32(f"{name} {what}".encode()))
    good = one_of(name)
    bad = None if good is None else CHANGES[what](good, good.program, rng)
    if good is None or bad is None:
        return
    try:
        before, after = written_unchanged(name), written(bad)
    except (NvdlaQuantError, ValueError):
        return  # Refused before it runs.
    limit = 1.0 if good.table is not None else 0.03 * max(float(np.nanstd(values)) for values in before.values())
    if not first_change(before, after) > limit:
        return
    first = min(index for index, values in before.items() if not np.array_equal(values, after.get(index)))
    verdict = bad.verify().verdict
    assert verdict.verdict is Judgement.MISCOMPILED, (first, verdict)
    operations = [finding.operation for finding in verdict.findings if finding.weight == "wrong"]
    assert first in operations, (first, verdict.findings)


def has_negative(network: Network, stage: Stage) -> bool:
    """Whether a stage is a convolution with negative weights, so that a ReLU behind it shows."""
    operation = network.by_name[stage.layer].operation if isinstance(stage, Weighting) else None
    return isinstance(operation, Convolution | InnerProduct) and bool((operation.weights < 0).any())


def copies(network: Network, piece: Piece) -> bool:
    """Whether a piece is a pooling of single pixels, which copies them, or a normalisation, which may change little."""
    operation = network.by_name[piece.layers[-1]].operation
    return isinstance(operation, LRN) or (isinstance(operation, Pooling) and operation.kernel == (1, 1))


def is_idle(network: Network, piece: Piece) -> bool:
    """Whether a piece is a Scale without negative numbers: behind it a ReLU may have nothing to cut."""
    operation = network.by_name[piece.layers[0]].operation
    return isinstance(operation, Scale) and not any(
        values is not None and (values < 0).any() for values in (operation.gamma, operation.beta)
    )


def mutations(network: Network, claim: Claim, rng: random.Random) -> Iterator[tuple[str, Claim]]:
    """Claims with one thing that is not so."""
    pieces = list(claim.pieces)

    def with_piece(number: int, *other: Piece) -> Claim:
        return replace(claim, pieces=(*pieces[:number], *other, *pieces[number + 1 :]))

    number = rng.randrange(len(pieces))
    piece = pieces[number]
    yield "an omitted piece", with_piece(number)
    yield "a doubled piece", with_piece(number, piece, piece)
    if len(piece.runs) > 1:
        yield "an omitted operation", with_piece(number, replace(piece, runs=piece.runs[1:]))
    run = piece.runs[0]
    yield "another operation", with_piece(number, replace(piece, runs=(replace(run, operation=run.operation + 1000),)))
    yield (
        "fewer rows",
        with_piece(number, replace(piece, runs=(replace(run, rows=(0, run.rows[1] + 1)), *piece.runs[1:]))),
    )
    first, end = piece.writes.channels
    moved = replace(piece.writes, channels=(first + 1, end + 1))
    yield "other channels written", with_piece(number, replace(piece, writes=moved))
    first, end = piece.reads.channels
    yield (
        "fewer channels read",
        with_piece(number, replace(piece, reads=replace(piece.reads, channels=(first, end - 1)))),
    )
    held = claim.tensors[piece.writes.tensor]
    yield (
        "another scale",
        replace(claim, tensors={**claim.tensors, piece.writes.tensor: replace(held, scale=held.scale * 1.03)}),
    )
    if piece.writes.tensor in network.tensors:  # What is made on the way may have gaps that nobody reads.
        larger = replace(held, shape=(held.shape[0] + 1, *held.shape[1:]))
        yield "another shape", replace(claim, tensors={**claim.tensors, piece.writes.tensor: larger})
    weighing = [n for n, one in enumerate(pieces) if one.stages and isinstance(one.stages[0], Weighting)]
    if weighing:
        number = rng.choice(weighing)
        piece = pieces[number]
        stage = piece.stages[0]
        assert isinstance(stage, Weighting)

        def staged(**fields: object) -> Claim:
            return with_piece(number, replace(piece, stages=(replace(stage, **fields), *piece.stages[1:])))  # type: ignore[arg-type]

        others = [pieces[n].stages[0] for n in weighing if n != number]
        for other in others[:1]:
            assert isinstance(other, Weighting)
            if other.layer != stage.layer:
                yield "another layer", staged(layer=other.layer)
        yield "no such layer", staged(layer="nowhere")
        yield "a factor", staged(factor=stage.factor * 1.02)
        yield "no bias" if stage.bias else "a bias", staged(bias=not stage.bias)
        kernels = stage.kernels
        yield "other kernels", staged(kernels=(kernels[0] + 1, kernels[1] + 1))
        yield "other padding", staged(pad=(stage.pad[0] + 1, stage.pad[1]))
        operation = network.by_name[stage.layer].operation
        if isinstance(operation, Convolution) and operation.weights.shape[2] > 1:
            yield "another dilation", staged(dilation=(stage.dilation[0] + 1, stage.dilation[1]))
    for kind in (Gathering, Whole, Rectifying):
        found = [
            n
            for n, one in enumerate(pieces)
            if any(isinstance(stage, kind) for stage in one.stages) and not copies(network, one)
            if kind is not Rectifying or not is_idle(network, one)
        ]
        if found:
            number = rng.choice(found)
            piece = pieces[number]
            left = tuple(stage for stage in piece.stages if not isinstance(stage, kind))
            yield f"no {kind.kind}", with_piece(number, replace(piece, stages=left))
    plain = [n for n, one in enumerate(pieces) if len(one.stages) == 1 and has_negative(network, one.stages[0])]
    if plain:
        number = rng.choice(plain)
        yield "a ReLU more", with_piece(number, replace(pieces[number], stages=(*pieces[number].stages, Rectifying())))


@pytest.mark.parametrize("name", GALLERY)
def test_no_claim_is_believed_that_is_not_so(name: str) -> None:
    """In the short form each network has a fifth of them, the next network the next fifth; in the long form all."""
    rng = random.Random(zlib.crc32(name.encode()))
    case = one_of(name)
    if case is None:
        return
    assert case.claim is not None
    parts = 1 if is_long() else 5
    tried = mutations(for_hardware(case.network), case.claim, rng)
    for what, claim in itertools.islice(tried, list(GALLERY).index(name) % parts, None, parts):
        if claim == case.claim:
            continue
        verdict = replace(case, claim=claim).verify().verdict
        assert verdict.verdict is Judgement.MISCOMPILED, (what, verdict)


@pytest.mark.parametrize("name", ["googlenet", "mobilenet-v1", "unet", "slopes"])
def test_a_claim_comes_back_from_its_file(name: str) -> None:
    case = compiled(name, "nv_full")
    assert case is not None
    assert case.claim is not None
    content = json.loads(json.dumps(claim_as_json(case.claim)))
    assert claim_from_json(content, "compile.json") == case.claim
    del content["pieces"][0]["stages"][0]["kind"]
    with pytest.raises(ClaimError, match=r"^compile\.json: claim: at pieces/0/stages/0: .{1,250}$"):
        claim_from_json(content, "compile.json")
