"""Which layers each operation of a loadable computes, found from structure and values alone.

Names in a loadable are not needed. An operation reads tensors whose place in the network is known, so what it writes
is a tensor that can be computed from exactly those; how many convolutions, poolings, sums, ... lie between is compared
with what the operation does, and the values with the float network's. The cheapest assignment of all operations
together wins (a beam search in the order of execution).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator.decode.program import Program
from nvdla_quant.emulator.memory import Values
from nvdla_quant.emulator.operations import Cube, Operation
from nvdla_quant.network.graph import (
    Convolution,
    InnerProduct,
    Layer,
    Network,
    Scale,
)
from nvdla_quant.network.shapes import assemble
from nvdla_quant.network.views import VIEWS, viewed
from nvdla_quant.verification.measures.outputs import outputs_of
from nvdla_quant.verification.search.dataflow import NOBODY, Flow, input_mark, trace
from nvdla_quant.verification.search.doing import (
    ALL_KINDS,
    HARD,
    KINDS,
    added,
    adds_constant,
    correlation,
    describe_operation,
    difference,
    window_of,
    work_of,
)

BEAM = 48
"""Assignments that are followed at once; real networks leave a handful open."""

SLACK = 7.0
"""How much dearer than the cheapest an assignment may be before it is given up: an open operation, and a doubt more."""

REACH = 24
"""Layers that one operation may stand for."""

DEPTH = 10
"""Layers in a row that one operation may stand for: convolution, normalisations, activation, sum, activation."""

SOFT = 1.0
"""Cost of an activation too many or too few, and of an operation that only rescales."""

UNKNOWN = 3.0
"""Cost of leaving the meaning of an operation to the ones that read it: below `HARD`, above every other doubt."""

PIECE = 0.5
"""Cost of writing only a part of a tensor: below `SOFT`, since splitting is usual where nothing fits whole."""


@dataclass(frozen=True)
class Step:
    """Operations that together write one tensor of the network.

    Attributes
    ----------
    tensor : str
        The tensor, as in the network that `expand` returned.
    operations : tuple[int, ...]
        Positions in the program; the last ones write the tensor (or its parts), ones before only intermediate sums.
    parts : tuple[tuple[int, int, int], ...]
        For each operation that writes the tensor: position, first channel, first row.
    layers : tuple[str, ...]
        Layers that they compute; none where they only rescale.
    sources : tuple[int, ...]
        Steps that they read (numbers in the list of steps); -1 stands for the network's input.
    strays : bool
        Whether they read bytes that nothing wrote.
    """

    tensor: str
    operations: tuple[int, ...]
    parts: tuple[tuple[int, int, int], ...]
    layers: tuple[str, ...]
    sources: tuple[int, ...]
    strays: bool


def expand(network: Network) -> Network:
    """Write every Scale with a bias as two layers, ``<name>:scaled`` and ``<name>``.

    `nvdla_compiler` without its fast-math profile runs them as two operations.
    """
    layers: list[Layer] = []
    for layer in network.layers:
        if isinstance(layer.operation, Scale) and layer.operation.beta is not None:
            name = f"{layer.name}:scaled"
            layers.append(Layer(name, Scale(layer.operation.gamma, None), layer.inputs))
            layer = Layer(layer.name, Scale(np.ones_like(layer.operation.gamma), layer.operation.beta), (name,))
        layers.append(layer)
    blobs = {name: tensor.blob for name, tensor in network.tensors.items()}
    return assemble(network.name, network.inputs, layers, blobs)


def base_name(tensor: str) -> str:
    """Return the layer of the original network that a tensor of the expanded one belongs to."""
    return tensor.removesuffix(":scaled")


class UndecidedError(Exception):
    """What the operations compute was not found; carries the operation where, and why."""

    def __init__(self, text: str, operation: int | None) -> None:
        super().__init__(text)
        self.operation = operation


def map_operations(
    program: Program,
    network: Network,
    wrote: Mapping[int, Values],
    expected: Mapping[str, NDArray[np.float32]],
    seconds: float,
) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    """Find what each operation computes.

    Parameters
    ----------
    program : Program
        A decoded loadable with one input.
    network : Network
        What `expand` returned.
    wrote : Mapping[int, Values]
        What the operations wrote for some images, by position in the program.
    expected : Mapping[str, NDArray[float32]]
        The float network's tensors for the same images.
    seconds : float
        Time that the search may take.

    Returns
    -------
    tuple[Step, ...], tuple[str, ...]
        In the order of execution; and the tensor that each output of the loadable holds.

    Raises
    ------
    UndecidedError
        No layer fits an operation, or the time is over; the message names the operation.
    """
    search = _Search(program, network, trace(program), wrote, expected)
    best = search.best(time.monotonic() + seconds)
    outputs = tuple(tensor for (tensor,) in search.ends(best))
    return _steps(program, network, search.flow, best), outputs


@dataclass(frozen=True)
class _Path:
    """A tensor that can be computed from some others, and the layers in between."""

    tensor: str
    layers: tuple[Layer, ...]

    @cached_property
    def counts(self) -> dict[str, int]:
        counts = dict.fromkeys(ALL_KINDS, 0)
        for layer in self.layers:
            if layer.kind in KINDS:
                counts[KINDS[layer.kind]] += max(len(layer.inputs) - 1, 1) if layer.kind == "Eltwise" else 1
            counts["offset"] += adds_constant(layer)
        return counts


@dataclass(frozen=True)
class _State:
    """An assignment of the operations so far: a path for each, or None where it is left open."""

    cost: float
    paths: tuple[_Path | None, ...] = ()
    worst: tuple[float, int] = (0.0, -1)


class _Search:
    def __init__(
        self,
        program: Program,
        network: Network,
        flow: Flow,
        wrote: Mapping[int, Values],
        expected: Mapping[str, NDArray[np.float32]],
    ) -> None:
        self.program, self.network, self.flow = program, network, flow
        self._wrote, self._expected = wrote, expected
        self._paths: dict[frozenset[str], list[_Path]] = {}
        self._likeness: dict[tuple[int, str], float] = {}
        self._place = {layer.name: number for number, layer in enumerate(network.layers)}

    def best(self, deadline: float) -> _State:
        states = [_State(0.0)]
        for position, operation in enumerate(self.program.operations):
            if time.monotonic() > deadline:
                what = f"{position} of {len(self.program.operations)} operations"
                raise UndecidedError(f"the time limit ended the search when {what} had their layers", operation.index)
            following = [later for state in states for later in self._extended(state, position, operation)]
            states = sorted(following, key=lambda state: state.cost)
            states = [state for state in states[:BEAM] if state.cost <= states[0].cost + SLACK]
        # Whether each holds its own is another question: what operations compute does not depend on it.
        finals = sorted([output.tensor] for output in outputs_of(self.program.output_names, self.network))
        fitting = [state for state in states if sorted(self.ends(state)) == finals]
        best = (fitting or states)[0]
        if not fitting or best.worst[0] >= UNKNOWN + HARD or best.worst[0] == HARD:
            position = best.worst[1] if best.worst[1] >= 0 else len(best.paths) - 1
            operation = self.program.operations[position]
            shape = "x".join(map(str, operation.destination.shape))
            raise UndecidedError(
                f"operation {operation.index} ({describe_operation(operation)}) writes {shape}, which no layer of "
                f"network {self.network.name!r} was found to compute from what it reads; is it the network of this "
                "loadable?",
                operation.index,
            )
        return best

    def ends(self, state: _State) -> list[list[str]]:
        """Return the tensors that each output holds."""
        return [sorted(self._labels(state, owners)) for owners in self.flow.outputs]

    def _labels(self, state: _State, owners: Sequence[int]) -> set[str]:
        """Return the tensors that `owners` hold; what is left open stands for what it was computed from."""
        labels: set[str] = set()
        front, known = list(owners), set(owners)
        while front:
            owner = front.pop()
            if owner <= input_mark(0):
                labels.add(self.network.only_input.name)
            elif owner != NOBODY:
                path = state.paths[owner]
                if path is not None:
                    labels.add(path.tensor)
                else:
                    front += [source for source in self.flow.sources[owner] if source not in known]
                    known.update(self.flow.sources[owner])
        return labels

    def _extended(self, state: _State, position: int, operation: Operation) -> list[_State]:
        sources = self.flow.sources[position]
        origins = self._labels(state, sources)
        opened = [later for owner in sources if owner >= 0 for later in _open_chain(state, self.flow, owner)]
        does = added([work_of(self.program.operations[number]) for number in (*opened, position)])
        found = [replace(state, cost=state.cost + UNKNOWN, paths=(*state.paths, None))]
        whole = {
            path.tensor
            for number, path in enumerate(state.paths)
            if path is not None
            and path.layers
            and self.program.operations[number].destination.shape == operation.destination.shape
        }
        for path in self._from(frozenset(origins)):
            cost = self._shape_cost(operation, path)
            if cost is None:
                continue
            hard = difference(does, path.counts, bool(opened))
            if not opened:
                hard += self._kernel_cost(operation, path) + self._operand_cost(path, origins)
                hard += self._order_cost(path)
            cost += hard
            cost += SOFT * abs(min(does["relu"], 1) - min(path.counts["relu"], 1))
            cost += SOFT * abs(min(does["lookup"], 1) - min(path.counts["lookup"], 1))
            cost += SOFT * (path.counts["affine"] > 0 and not does["conv"] and not does["affine"])
            cost += SOFT * abs(min(does["offset"], 1) - min(path.counts["offset"], 1))
            cost += SOFT * (not path.layers or path.tensor in whole)
            cost += 1.0 - self._alike(position, path.tensor)
            worst = max(state.worst, (HARD, position)) if hard else state.worst
            found.append(_State(state.cost + cost, (*state.paths, path), worst))
        return found

    def _shape_cost(self, operation: Operation, path: _Path) -> float | None:
        shape, whole = operation.destination.shape, self.network.tensors[path.tensor].chw
        if shape == whole:
            return 0.0
        fits = shape[2] == whole[2] and shape[0] <= whole[0] and shape[1] <= whole[1]
        return PIECE if fits and path.layers else None

    def _kernel_cost(self, operation: Operation, path: _Path) -> float:
        """Return the cost of a window that is not the layer's."""
        windows = [window for layer in path.layers if (window := self._window(layer)) is not None]
        has = window_of(operation)
        return HARD if len(windows) == 1 and has is not None and windows[0] != has else 0.0

    def _window(self, layer: Layer) -> tuple[int, int] | None:
        match layer.operation:
            case Convolution():
                return layer.operation.weights.shape[2], layer.operation.weights.shape[3]
            case InnerProduct():
                source = viewed(self.network, layer.inputs[0])
                return self.network.tensors[source].chw[1:]
        return None

    def _operand_cost(self, path: _Path, origins: set[str]) -> float:
        """Return the cost of sums with more than one side computed on the way: a unit reads its operand as it is."""
        computed = (
            sum(viewed(self.network, name) not in origins for name in layer.inputs)
            for layer in path.layers
            if layer.kind == "Eltwise"
        )
        return HARD * sum(max(count - 1, 0) for count in computed)

    def _order_cost(self, path: _Path) -> float:
        """Return the cost of activations before a convolution, pooling, ...: they come behind in one operation."""
        inside = {layer.name for layer in path.layers}
        before = {
            viewed(self.network, name)
            for layer in path.layers
            if KINDS.get(layer.kind) in ("conv", "pool", "norm", "softmax")
            for name in layer.inputs
        }
        early = [name for name in before & inside if KINDS.get(self.network.by_name[name].kind) in ("relu", "lookup")]
        return HARD * len(early)

    def _alike(self, position: int, tensor: str) -> float:
        """Return the correlation of what an operation wrote with a tensor of the float network; 0 where unknown."""
        if (position, tensor) not in self._likeness:
            wrote, expected = self._wrote[position], self._expected[tensor]
            value = 0.0
            if wrote[0].size == expected[0].size:
                value = max(correlation(wrote.reshape(-1), expected.reshape(-1)), 0.0)
            self._likeness[position, tensor] = value
        return self._likeness[position, tensor]

    def _from(self, origins: frozenset[str]) -> list[_Path]:
        """Return every tensor that can be computed from exactly `origins`, nearest first."""
        if origins not in self._paths:
            depth = dict.fromkeys(origins, 0)
            for layer in self.network.layers:
                known = [depth[name] for name in layer.inputs if name in depth]
                step = 0 if isinstance(layer.operation, VIEWS) else 1
                if known and layer.name not in depth and min(known) + step <= DEPTH:
                    depth[layer.name] = min(known) + step
            found = [self._path(name, origins) for name in depth if viewed(self.network, name) == name]
            self._paths[origins] = [path for path in found if path is not None]
        return self._paths[origins]

    def _path(self, tensor: str, origins: frozenset[str]) -> _Path | None:
        """Return the layers from `origins` to `tensor`, or None where it needs more than these or fewer."""
        layers: dict[str, Layer] = {}
        used: set[str] = set()
        front = [tensor]
        while front:
            name = front.pop()
            if name in origins:
                used.add(name)
            elif name not in self.network.by_name or len(layers) > REACH:
                return None
            elif name not in layers:
                layers[name] = self.network.by_name[name]
                front += layers[name].inputs
        if used != origins:
            return None
        return _Path(tensor, tuple(sorted(layers.values(), key=lambda layer: self._place[layer.name])))


def _open_chain(state: _State, flow: Flow, owner: int) -> list[int]:
    """Return the operations left open that lead to `owner`, itself among them."""
    found: dict[int, None] = {}
    front = [owner]
    while front:
        position = front.pop()
        if position >= 0 and state.paths[position] is None and position not in found:
            found[position] = None
            front += flow.sources[position]
    return list(found)


def _steps(program: Program, network: Network, flow: Flow, state: _State) -> tuple[Step, ...]:
    """Join operations that write parts of one tensor, and the open ones that lead to them."""
    groups: list[list[int]] = []
    for position, path in enumerate(state.paths):
        if path is None:
            continue
        whole = network.tensors[path.tensor].chw == program.operations[position].destination.shape
        same = [group for group in groups if not whole and _joins(program, state, group[-1], position, network)]
        if same:
            same[0].append(position)
        else:
            groups.append([position])
    number_of = {position: number for number, group in enumerate(groups) for position in group}
    return tuple(_step(program, network, flow, state, group, number_of) for group in groups)


def _joins(program: Program, state: _State, first: int, second: int, network: Network) -> bool:
    a, b = state.paths[first], state.paths[second]
    one, other = program.operations[first].destination, program.operations[second].destination
    if a is None or b is None or a.tensor != b.tensor or network.tensors[a.tensor].chw == one.shape:
        return False
    return (one.memory, one.line_stride, one.surface_stride) == (other.memory, other.line_stride, other.surface_stride)


def _step(
    program: Program, network: Network, flow: Flow, state: _State, group: list[int], number_of: Mapping[int, int]
) -> Step:
    path = state.paths[group[0]]
    assert path is not None
    operations: dict[int, None] = {}
    sources: dict[int, None] = {}
    strays = False
    front = list(group)
    while front:
        position = front.pop()
        operations[position] = None
        for owner in flow.sources[position]:
            if owner == NOBODY:
                strays = True
            elif owner <= input_mark(0):
                sources[-1] = None
            elif state.paths[owner] is None:
                front.append(owner)
            else:
                sources[number_of[owner]] = None
    parts = _parts([(position, program.operations[position].destination) for position in group])
    layers = tuple(dict.fromkeys(layer.name for layer in path.layers))
    return Step(path.tensor, tuple(sorted(operations)), parts, layers, tuple(sorted(sources)), strays)


def _parts(cubes: list[tuple[int, Cube]]) -> tuple[tuple[int, int, int], ...]:
    """Return (position, first channel, first row) of cubes that lie in one tensor."""
    start = min(cube.offset for _, cube in cubes)
    parts = []
    for position, cube in cubes:
        surface, rest = divmod(cube.offset - start, cube.surface_stride) if len(cubes) > 1 else (0, 0)
        parts.append((position, surface * cube.atom, rest // cube.line_stride if rest else 0))
    return tuple(parts)
