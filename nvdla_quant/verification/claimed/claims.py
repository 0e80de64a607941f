"""Hold a claim to the network and to the loadable, operation by operation.

Four questions, whose answers together say that the loadable computes the network:

1. Do the claimed pieces cover every operation of the loadable, each once, and does each read only what is there?
2. Do the pieces, computed in floating point one after another, give the tensors of the float network?
3. Are the weights of each operation the network's, at the multiplier that its own descriptor has?
4. Does each operation write what its piece makes of the values that it read, up to its own roundings?

Nothing of the claim is taken for granted: weights, multipliers and values are the loadable's own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.compiler.claim.records import (
    Affine,
    Claim,
    Gathering,
    Lookup,
    Piece,
    Place,
    Rectifying,
    Stage,
    Weighting,
    Whole,
)
from nvdla_quant.emulator import run as emulator
from nvdla_quant.emulator.memory import Values
from nvdla_quant.emulator.operations import ConvOperation, Fp16, Operation, SdpOperation
from nvdla_quant.errors import ClaimError
from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.hardware.targets import Precision, QuantizationMode
from nvdla_quant.network.graph import HardSigmoid, HardSwish, Softmax
from nvdla_quant.network.passes import affine_of, for_hardware
from nvdla_quant.network.views import viewed
from nvdla_quant.verification.claimed.cover import NotSoError, Written, cover, joined, scale_faults, size_of
from nvdla_quant.verification.claimed.pieces import FloatPieces, taken
from nvdla_quant.verification.measures.comparison import Floats
from nvdla_quant.verification.measures.examination import (
    REFERENCE_IMAGES,
    Examination,
    Examined,
    Fault,
    Held,
    Subject,
    compare_with_references,
)
from nvdla_quant.verification.measures.local import Local, local_of
from nvdla_quant.verification.measures.outputs import Output, ends_of, misplaced, outputs_of
from nvdla_quant.verification.measures.tables import FunctionTable, table_of
from nvdla_quant.verification.measures.tolerance import gain_of
from nvdla_quant.verification.measures.weights import Fit, WeightCheck, compared, fit, unpacked

COMPOSED_IMAGES = 1
"""Images that the pieces are computed on in floating point."""
LOOKED_AT = 1 << 18
"""Values of a piece that are looked at, of whole images, two at least: where one has many, others tell no more."""
WIDER_FOR_KINKS = 16
"""Times that a table's intervals may be wider than a step of its input, so that kinks of its function lie within."""
_GIVEN = -1
"""Piece that what is there from the start is complete behind: none."""
COMPOSED = 1e-3
"""Share of a channel's largest value, and of the tensor's root mean square, that sums in another order may cost."""
FUNCTION = 2e-6
"""What float32 costs a function besides, whatever its values are: GELU multiplies by 1 + erf(x), which comes to 0."""
SATURATED = 1.0
"""Steps that a weight of 127 may stand for more than that: rounding, and scales that end in its middle."""
MULTIPLIER = 2e-4
"""Relative error of a multiplier beyond what rounded weights leave open: 16 bits hold 2**-15 of it."""


def examine_claimed(subject: Subject, claim: Claim) -> Examination:
    """Examine a loadable by what its compiler claims of it."""
    return _Judge(subject, claim).examination()


class _Judge:
    def __init__(self, subject: Subject, claim: Claim) -> None:
        self._subject, self._claim, self._program = subject, claim, subject.program
        self._prepared = for_hardware(subject.network)
        self._floats = FloatPieces(self._prepared)
        self._outputs = outputs_of(self._program.output_names, self._prepared)
        self._half = self._program.precision is Precision.FP16
        self._owner = self._owners()
        places = ((name, claim.place_of(name)) for name in subject.network.by_name)
        self._places = {name: place for name, place in places if place is not None}
        self._reference = Reference(subject.network, list(self._places), batch_size=REFERENCE_IMAGES, packed=False)

    def _owners(self) -> dict[int, str]:
        """Return the tensor of the network that each piece contributes to, by its first operation.

        What is made on the way belongs to the tensor that it ends in.
        """
        owners: dict[int, str] = {}
        readers: dict[str, str] = {}
        for piece in reversed(self._claim.pieces):
            name = piece.layers[-1]
            if name not in self._subject.network.by_name or self._claim.place_of(name) is None:
                name = readers.get(piece.writes.tensor, name)
            owners[piece.runs[0].operation] = name
            readers |= {place.tensor: name for place in (piece.reads, *joined(piece))}
        return owners

    def examination(self) -> Examination:
        subject = self._subject
        mode = None if self._claim.mode is None or self._half else QuantizationMode(self._claim.mode)
        found = Examination(
            self._program, subject.network, subject.table, mode, subject.device, subject.clipped, claimed=True
        )
        written, faults = self._placed()
        faults = faults or [*scale_faults(self._subject, self._prepared, self._claim)] or [*self._composed(written)]
        if faults:
            return replace(found, faults=tuple(faults))
        held, results = self._run(written)
        try:
            steps = tuple(self._examined(one, held) for one in written)
            tensors = tuple(self._held(steps, held, mode))
        except NotSoError as error:
            return replace(found, faults=(error.fault,))
        if fault := self._astray(held, results):
            return replace(found, faults=(fault,)) if len(results) == 1 else replace(found, astray=(fault,))
        return replace(found, steps=steps, held=tensors, scores=self._scores(tensors))

    def _place(self, tensor: str) -> Place:
        """Return where an output of the network is; `cover` has made sure that it has a place."""
        place = self._claim.place_of(tensor)
        assert place is not None
        return place

    def _astray(self, held: Mapping[str, Values], results: Sequence[Values]) -> Fault | None:
        """Return what is wrong with what the outputs hold."""
        should = {output: taken(held[place.tensor], place) for output, place in self._output_places()}
        wrong = [output for output in self._outputs if not _same(results[output.number], should[output])]
        if not wrong:
            return None
        if len(self._outputs) == 1:
            tensor = self._place(wrong[0].tensor).tensor
            return Fault(tensor, None, f"the loadable's output is not what is claimed to be {tensor}")
        holds = {
            output.number: next(
                (other.tensor for other, values in should.items() if _same(results[output.number], values)), None
            )
            for output in wrong
        }
        return Fault(wrong[0].tensor, None, misplaced(self._outputs, holds))

    def _output_places(self) -> Iterator[tuple[Output, Place]]:
        return ((output, self._place(output.tensor)) for output in self._outputs)

    def _scores(self, tensors: Sequence[Held]) -> tuple[Held, ...]:
        """Return the tensors that tell whether the outputs are right; see `Examination.scores`."""
        scores = []
        for _, place in self._output_places():
            places = [(one, self._place(one.layer)) for one in tensors]
            whole = [one for one, other in places if other == place][-1:]
            scores += [self._before_softmax(one, tensors) for one in whole]
            # Concatenated, it has no step of its own.
            scores += [] if whole else [one for one, other in places if _meet(other, place)]
        return tuple(dict.fromkeys(scores))

    def _before_softmax(self, output: Held, tensors: Sequence[Held]) -> Held:
        if not output.is_softmax:
            return output
        before = viewed(self._prepared, self._prepared.by_name[output.layer].inputs[0])
        return next((one for one in tensors if one.layer == before), output)

    def _placed(self) -> tuple[list[Written], list[Fault]]:
        """Return the pieces with their operations, and what is not so of them."""
        claim, program = self._claim, self._program
        if claim.precision != str(program.precision):
            return [], [Fault("", None, f"it is for {claim.precision}, the loadable computes in {program.precision}")]
        try:
            return [*cover(self._subject, self._prepared, claim)], []
        except NotSoError as error:
            return [], [error.fault]

    # Do the pieces compute the network?

    def _composed(self, written: Sequence[Written]) -> Iterator[Fault]:
        """Compute the pieces in floating point; yield the first tensor that is not the network's."""
        network, images = self._subject.network, self._subject.images[:COMPOSED_IMAGES]
        places = self._places
        expected = self._reference.run(images)
        values: dict[str, Floats] = {
            name: np.zeros((len(images), *held.shape), np.float32) for name, held in self._claim.tensors.items()
        }
        values[network.only_input.name] = images
        complete: dict[int, list[str]] = {}
        for name, place in places.items():
            last = max((index for index, one in enumerate(written) if _meet(one.piece.writes, place)), default=_GIVEN)
            complete.setdefault(last, []).append(name)

        def wrong(index: int) -> Iterator[Fault]:
            for name in complete.get(index, ()):
                whole = taken(values[places[name].tensor], places[name])
                wanted = expected[name].reshape(whole.shape)
                made_by = () if index == _GIVEN else written[index].piece.stages
                floor = FUNCTION if any(isinstance(stage, Lookup) for stage in made_by) else 0.0
                if text := _differs(whole, wanted, floor):
                    operation = None if index == _GIVEN else written[index].piece.runs[-1].operation
                    yield Fault(name, operation, f"what is claimed of {name} is not the network's: {text}")
                # Go on from the network's own, so that sums in another order do not add up.
                whole[:] = wanted

        # Some are channels of the input.
        if given := next(wrong(_GIVEN), None):
            yield given
            return
        for index, one in enumerate(written):
            piece = one.piece
            others = {place: taken(values[place.tensor], place) for place in joined(piece)}
            target = taken(values[piece.writes.tensor], piece.writes)
            try:
                made = self._floats.compute(piece, taken(values[piece.reads.tensor], piece.reads), others, one.size)
                if made.shape != target.shape:
                    raise ClaimError(f"it makes {size_of(made.shape[1:])}, claimed are {size_of(target.shape[1:])}")
            except ClaimError as error:
                yield Fault(piece.layers[-1], piece.runs[0].operation, str(error))
                return
            target[:] = made
            if fault := next(wrong(index), None):
                yield fault
                return

    # What does the loadable compute?

    def _run(self, written: Sequence[Written]) -> tuple[dict[str, Values], list[Values]]:
        """Return what the loadable writes into each tensor, and what comes out, an array for each output."""
        dtype = np.float16 if self._half else np.int8
        count = len(self._subject.fed)
        held: dict[str, Any] = {
            name: np.zeros((count, *tensor.shape), dtype) for name, tensor in self._claim.tensors.items()
        }
        source = self._subject.network.only_input
        held[source.name] = self._subject.fed[:, : source.chw[0]]
        places = {operation.index: (one.piece.writes, run) for one in written for run, operation in one.runs}

        def keep(operation: Operation, values: Values, first: int) -> None:
            place, run = places[operation.index]
            (row, rows), (column, columns) = run.rows, run.columns
            part = taken(held[place.tensor], place)[first : first + len(values), :, row : row + rows]
            part[..., column : column + columns] = values.reshape(len(values), -1, rows, columns)

        # Fast, since what the exact sums would change is far below what is judged here.
        fed = {self._program.inputs[0].name: self._subject.fed}
        results = emulator.run_tensors(self._program, fed, fp16=Fp16.FAST, on_step=keep)
        return held, [results[port.name] for port in self._program.outputs]

    def _examined(self, one: Written, held: Mapping[str, Values]) -> Examined:
        piece, claim = one.piece, self._claim
        written = taken(held[piece.writes.tensor], piece.writes)
        some = slice(0, max(-(-LOOKED_AT // written[0].size), 2))
        source = taken(held[piece.reads.tensor], piece.reads)[some].astype(np.float32)
        scale_in, scale_out = claim.tensors[piece.reads.tensor].scale, claim.tensors[piece.writes.tensor].scale
        values = np.ascontiguousarray(written[some])
        others = {
            place: taken(held[place.tensor], place)[some].astype(np.float32)
            * np.float32(claim.tensors[place.tensor].scale)
            for place in joined(piece)
        }
        weighing = next((stage for stage in piece.stages if isinstance(stage, Weighting | Gathering)), None)
        lookup = next((stage for stage in piece.stages if isinstance(stage, Lookup)), None)
        units = scale_in, scale_out if lookup is None else lookup.unit
        function = None if lookup is None or self._half else self._table(one, lookup, scale_out)
        weights = None if weighing is None else self._weights(one, weighing, source.shape[1], units)
        if weights is None:
            real = source * np.float32(scale_in)
            if any(isinstance(stage, Whole) and self._is_softmax(stage.layer) for stage in piece.stages):
                with np.errstate(over="ignore"):
                    real = real.astype(np.float16).astype(np.float32)  # As the runtime rounds what it reads.
            expected = self._floats.compute(piece, real, others, one.size, table=function)
            leeways: tuple[NDArray[np.float64], ...] = ()
        else:
            expected = self._floats.compute(piece, source, others, one.size, weights.found, weights.factors, function)
            leeways = weights.leeways
        local = local_of(
            one.operations,
            values,
            expected,
            scale_out,
            leeways,
            added=self._added(piece, source * np.float32(scale_in)) if self._half else None,
        )
        layer = self._owner[piece.runs[0].operation]
        suspect = one.operations[-1].index
        if weights is not None and weights.suspect is not None:
            suspect = weights.suspect
        elif local.detail is not None:
            suspect = _first_wrong(one, local)

        def remake(inputs: Floats) -> Floats:
            stages: tuple[Stage, ...] = piece.stages
            if isinstance(stages[-1], Rectifying):
                stages = stages[:-1]
            bare = Piece(piece.layers, piece.reads, piece.writes, stages, piece.runs)
            found, factors = (None, None) if weights is None else (weights.found, weights.factors / scale_in)
            source = taken(inputs[some], piece.reads)
            return self._floats.compute(bare, source, others, one.size, found, factors, function)

        table = self._subject.table
        entry = table.scales.get(layer, scale_out) if table is not None else 1.0
        return Examined(
            layer=layer,
            layers=piece.layers,
            kinds=frozenset(self._prepared.by_name[name].kind for name in piece.layers),
            operations=one.operations,
            values=values,
            scale=entry,
            effective=scale_out,
            reason="" if entry == scale_out else "by the claim",
            local=local,
            weights=() if weights is None else weights.checks,
            leeways=leeways,
            gains=None if weights is None else weights.gains,
            misread=None,
            reads_input=piece.reads.tensor == self._subject.network.only_input.name and not others,
            strays=False,
            merged=False,
            suspect=suspect,
            remake=remake,
            rectified=bool(piece.stages) and isinstance(piece.stages[-1], Rectifying),
        )

    def _table(self, one: Written, stage: Lookup, output: float) -> FunctionTable | None:
        """Return where the table of a piece has its entries, as far as a step of its input's table entry excuses it."""
        layer, table = self._floats.layer(stage.layer), self._subject.table
        source = None if table is None else table.scales.get(viewed(self._prepared, layer.inputs[0]))
        if source is None:
            return None
        widest = source * (WIDER_FOR_KINKS if isinstance(layer.operation, HardSigmoid | HardSwish) else 1)
        return table_of(one.operations, stage.unit, widest, output)

    def _is_softmax(self, layer: str) -> bool:
        return isinstance(self._floats.layer(layer).operation, Softmax)

    def _added(self, piece: Piece, source: Floats) -> NDArray[np.float64]:
        """Return the size of what is added up in each channel of a piece: biases, offsets, values of an average."""
        channels = piece.writes.channels
        total = np.zeros(channels[1] - channels[0])
        for stage in piece.stages:
            if isinstance(stage, Weighting) and (bias := self._floats.bias(stage)) is not None:
                total += np.abs(bias)
            elif isinstance(stage, Affine) and (parts := affine_of(self._floats.layer(stage.layer).operation)):
                total += np.abs(parts[1])
            elif isinstance(stage, Whole) and self._floats.layer(stage.layer).kind == "Pooling":
                total += np.abs(source).max(axis=(0, 2, 3))
        return total

    def _weights(
        self, one: Written, stage: Weighting | Gathering, channels: int, scales: tuple[float, float]
    ) -> "_Weights":
        """Return the weights of a piece's convolutions beside the network's."""
        expected = self._floats.weights(stage, channels)
        layer = stage.layer if isinstance(stage, Weighting) else one.piece.layers[0]
        result: _Weights | None = None
        checks: list[WeightCheck] = []
        gains: NDArray[np.float64] | None = None
        suspect: int | None = None
        seen: dict[tuple[object, ...], tuple[NDArray[np.float32], Fit]] = {}
        for operation in one.operations:
            assert isinstance(operation, SdpOperation)
            convolution = operation.source
            assert isinstance(convolution, ConvOperation)
            key = (*convolution.weight_windows, convolution.kernel_height, convolution.kernel_width)
            if key not in seen:
                seen[key] = self._fitted(operation, convolution, expected, layer)
            own, fitted = seen[key]
            if not fitted.fits.all():
                pair = (part.transpose(0, 2, 3, 1).astype(np.float64) for part in (expected, own))
                checks.append(compared(layer, convolution.index, next(pair), next(pair), self._half))
                suspect = operation.index if suspect is None else suspect
            gain = gain_of(operation)
            if gain is None:
                factors, leeways = fitted.factors * scales[0], (*_NO_LEEWAY, fitted.leeway)
            else:
                factors, leeways = gain * scales[1], _NO_LEEWAY
                wrong = fitted.fits & ~fitted.explained_by(factors / scales[0], MULTIPLIER)
                if wrong.any():
                    likely = fitted.factors * scales[0]
                    with np.errstate(divide="ignore", invalid="ignore"):
                        gains = np.where(wrong, factors / likely, 1.0) if gains is None else gains
                    suspect = operation.index if suspect is None else suspect
                    factors, leeways = likely, (fitted.leeway,)
            result = result or _Weights(own, factors, leeways)
        assert result is not None
        if checks:
            # Not the network's: what should have come out is told by the network's own.
            result = _Weights(expected, np.full(len(expected), scales[0]), ())
        return replace(result, checks=tuple(checks), gains=gains, suspect=suspect)

    def _fitted(
        self, operation: SdpOperation, convolution: ConvOperation, expected: NDArray[np.float32], layer: str
    ) -> tuple[NDArray[np.float32], Fit]:
        """Return the weights of a convolution, (kernels, channels, height, width), and how the network's fit them."""
        channels = expected.shape[1]
        own = unpacked(self._program, convolution)[..., :channels].transpose(0, 3, 1, 2)
        if own.shape != expected.shape:
            text = f"operation {operation.index} has weights {own.shape}, its claim {expected.shape}"
            raise NotSoError(layer, operation.index, text)
        held = np.ascontiguousarray(own, np.float32)
        lines = (part.reshape(len(expected), -1) for part in (expected, held))
        return held, fit(next(lines), next(lines), self._half, SATURATED)

    def _held(
        self, steps: Sequence[Examined], held: Mapping[str, Values], mode: QuantizationMode | None
    ) -> Iterator[Held]:
        """Yield the tensors of the network that the loadable holds, in the order in which they are made."""
        table = self._subject.table
        of_layer: dict[str, list[Examined]] = {}
        for step in steps:
            of_layer.setdefault(step.layer, []).append(step)
        values: list[tuple[str, Values, float]] = []
        for name in of_layer:
            place = self._claim.place_of(name)
            if place is None:
                raise NotSoError(name, None, f"the tensor of layer {name!r} has no place")
            values.append((name, taken(held[place.tensor], place), self._claim.tensors[place.tensor].scale))
        ends = ends_of(self._prepared) | {
            name for name in of_layer for _, place in self._output_places() if _meet(self._place(name), place)
        }
        beside = compare_with_references(self._subject, self._reference, mode, values, list(of_layer), ends)
        for (name, array, scale), one in zip(values, beside, strict=True):
            entry = scale if table is None else table.scales.get(name, scale)
            yield Held(name, tuple(of_layer[name]), array, entry, scale, one)


@dataclass(frozen=True, eq=False)
class _Weights:
    """Weights of a piece, the real value of a product of each kernel's, and what is wrong with them."""

    found: NDArray[np.float32]
    factors: NDArray[np.float64]
    leeways: tuple[NDArray[np.float64], ...]
    checks: tuple[WeightCheck, ...] = ()
    gains: NDArray[np.float64] | None = None
    suspect: int | None = None


_NO_LEEWAY: tuple[NDArray[np.float64], ...] = ()


def _meet(one: Place, other: Place) -> bool:
    return one.tensor == other.tensor and one.channels[0] < other.channels[1] and other.channels[0] < one.channels[1]


def _same(values: Values, expected: Values) -> bool:
    return np.array_equal(values, expected, equal_nan=True)


def _differs(values: Floats, expected: Floats, floor: float) -> str:
    """Return where values are not the expected ones by more than sums in another order and `floor`; empty: nowhere."""
    size = np.abs(expected).max(axis=(0, 2, 3), keepdims=True)
    allowed = COMPOSED * (size + np.sqrt(np.mean(expected.astype(np.float64) ** 2))) + floor
    off = np.abs(values - expected)
    wrong = ~(off <= allowed)
    if not wrong.any():
        return ""
    channels = np.flatnonzero(wrong.any(axis=(0, 2, 3)))
    return f"{len(channels)} of {values.shape[1]} channels differ, the first is {channels[0]}, by up to {off.max():.4g}"


def _first_wrong(one: Written, local: Local) -> int:
    """Return the number of the first operation that writes a wrong value, or of the last where means are off."""
    assert local.detail is not None
    for run, operation in one.runs:
        (row, rows), (column, columns) = run.rows, run.columns
        if local.detail.beyond[:, :, row : row + rows, column : column + columns].any():
            return operation.index
    return one.operations[-1].index
