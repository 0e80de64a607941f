"""Scales of tensors and of weights, searched together for the best result of the loadable on calibration images.

A calibrator looks at one tensor at a time. What counts is what comes out, and it depends on what the compiler makes of
the scales: multipliers of 16 bits, one shift for a layer, filters whose scale is raised. So each trial compiles a
loadable, runs it on the emulator, and holds its scores to fp32's. One scale is moved at a time, up or down by a factor;
what improves the SQNR of the scores is kept; a round over all scales in which nothing improves is the last. The idea of
a search by the network's output, layer by layer and to and fro between tensors and weights, is from Wu et al.,
"EasyQuant" (arXiv:2006.16669), section 3.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.compiler.compile import Compilation, compile_network
from nvdla_quant.compiler.lowering.price import Objective
from nvdla_quant.compiler.numbers.chosen import chosen_scales
from nvdla_quant.emulator.decode.program import Program, decode
from nvdla_quant.emulator.memory import Values
from nvdla_quant.emulator.operations import Operation
from nvdla_quant.emulator.run import run_tensors
from nvdla_quant.errors import CompileError
from nvdla_quant.execution.fp32 import Reference, images_at_once
from nvdla_quant.execution.simulated import INT8_MAX, INT8_MIN
from nvdla_quant.execution.sqnr import sqnr
from nvdla_quant.hardware.targets import Precision, QuantizationMode, Target
from nvdla_quant.network.graph import Convolution, InnerProduct, Network, Softmax
from nvdla_quant.network.views import viewed
from nvdla_quant.quantization.rounding import nearest_steps
from nvdla_quant.quantization.steps import LayerSteps, WeightSteps, with_steps
from nvdla_quant.table.consistency import unify
from nvdla_quant.table.table import CalibrationTable

FACTORS = (2**-0.5, 2**0.5, 2**-0.25, 2**0.25)
"""Moves of a tensor's scale, the larger ones first."""

CLIPPED = (2**-0.25, 2**-0.5, 2**0.25)
"""Moves of a layer's weight scales: below what the largest weight needs, which clips it, and back."""

GAIN = 0.02
"""dB that a move must gain to be kept: less is chance."""

Feed = Callable[[CalibrationTable, int], Values]
"""Returns the images in the device's domain, by the table's scale of the input and the channels of the input."""

Scores = Sequence[NDArray[np.float32]]
"""Of each output of a network a value for each image and element, (n, elements)."""


@dataclass(frozen=True)
class Trial:
    """A move that was kept: a row of ``search.tsv``.

    Attributes
    ----------
    number : int
        Of the trial, from 1.
    kind : str
        ``tensor`` or ``weights``.
    names : str
        Tensors of one scale, or a layer.
    factor : float
        What the scale was multiplied by.
    sqnr : float
        Of the scores then, in dB.
    """

    number: int
    kind: str
    names: str
    factor: float
    sqnr: float


@dataclass(frozen=True, eq=False)
class Found:
    """The best scales.

    Attributes
    ----------
    table : CalibrationTable
        Scales of tensors.
    steps : WeightSteps
        Weights of layers whose scales were moved, as int8 steps; others are the compiler's.
    kept : tuple[Trial, ...]
        Moves that were kept, in order.
    first : float
        SQNR of the scores before the search, in dB.
    trials : int
        Loadables that were tried.
    settled : bool
        Whether the search ended since nothing improved, not since its trials were used up.
    """

    table: CalibrationTable
    steps: WeightSteps
    kept: tuple[Trial, ...]
    first: float
    trials: int
    settled: bool

    @property
    def last(self) -> float:
        """SQNR of the scores with what was found, in dB."""
        return self.kept[-1].sqnr if self.kept else self.first


def search(
    network: Network,
    table: CalibrationTable,
    target: Target,
    mode: QuantizationMode,
    feed: Feed,
    scores: Scores,
    *,
    trials: int,
    unify_scales: bool = True,
    pinned: frozenset[str] = frozenset(),
    objective: Objective = Objective.CYCLES,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Found:
    """Search scales by the result of the loadable.

    Parameters
    ----------
    network : Network
        As it is compiled, with its weights.
    table : CalibrationTable
        Where the search begins.
    target, mode, objective
        As `compile_network` takes them.
    feed : Callable
        Gives the images as the device takes them.
    scores : Sequence[NDArray[float32]]
        As of `fp32_scores`.
    trials : int
        Loadables that are tried, at most.
    unify_scales : bool
        Whether scales are kept consistent for the hardware, as the variant's table was made.
    pinned : frozenset[str]
        Tensors whose scale is given from outside.
    threads : int
        Threads of the emulator.
    progress : callable, optional
        Called with trials done, and the most there can be.

    Returns
    -------
    Found
        Never worse on these images than what the search began with.

    Raises
    ------
    CompileError, TableError
        As `compile_network`, where the search begins.
    """
    searching = _Search(network, target, mode, feed, scores, objective, threads)
    best = searching.value(table, {})
    clips: dict[str, float] = {}
    found = Found(table, WeightSteps(), (), best, 1, settled=False)
    moves = [*_tensor_moves(network, table, pinned), *_weight_moves(network, table, target, mode)]
    done = 1
    while True:
        improved = False
        for kind, names, factors in moves:
            for factor in factors:
                if done == trials:
                    return replace(found, trials=done)
                tried, tried_clips = found.table, clips
                if kind == "tensor":
                    tried = _moved(network, found.table, names, factor, pinned, unify_scales)
                else:
                    tried_clips = {**clips, names[0]: clips.get(names[0], 1.0) * factor}
                    if tried_clips[names[0]] > 1:
                        continue
                done += 1
                try:
                    value = searching.value(tried, tried_clips)
                except CompileError:  # Scales too far apart: no loadable, hence no candidate.
                    continue
                if progress is not None:
                    progress(done, trials)
                if value > best + GAIN:
                    best, clips, improved = value, tried_clips, True
                    kept = (*found.kept, Trial(done, kind, ", ".join(names), factor, value))
                    found = replace(found, table=tried, steps=searching.steps(tried, clips), kept=kept)
                    break
        if not improved:
            return replace(found, trials=done, settled=True)


_Move = tuple[str, tuple[str, ...], tuple[float, ...]]


def _tensor_moves(network: Network, table: CalibrationTable, pinned: frozenset[str]) -> Iterator[_Move]:
    """Yield the tensors whose scales move together: those that have the same one."""
    groups: dict[float, list[str]] = {}
    for name in network.tensors:
        if name in table.scales and network.tensors[name] not in network.outputs:
            groups.setdefault(table[name], []).append(name)
    for names in groups.values():
        if pinned.isdisjoint(names):
            yield "tensor", tuple(names), FACTORS


def _weight_moves(network: Network, table: CalibrationTable, target: Target, mode: QuantizationMode) -> Iterator[_Move]:
    """Yield the layers whose weight scales can be given: the network has no place for those of the compiler's own."""
    for name in chosen_scales(network, table, target, mode):
        operation = network.by_name[name].operation if name in network.by_name else None
        if isinstance(operation, Convolution | InnerProduct) and operation.scales is None:
            yield "weights", (name,), CLIPPED


def _moved(
    network: Network,
    table: CalibrationTable,
    names: tuple[str, ...],
    factor: float,
    pinned: frozenset[str],
    unify_scales: bool,
) -> CalibrationTable:
    scales = {name: scale * factor if name in names else scale for name, scale in table.scales.items()}
    moved = CalibrationTable(scales)
    return unify(network, moved, pinned)[0] if unify_scales else moved


def quantized_feed(images: NDArray[np.float32], name: str) -> Feed:
    """Return the feed of images in the network's own domain whose input `name` is quantized by the table's scale."""

    def feed(table: CalibrationTable, channels: int) -> Values:
        steps = np.clip(np.rint(images / np.float32(table[name])), INT8_MIN, INT8_MAX).astype(np.int8)
        return np.pad(steps, ((0, 0), (0, channels - steps.shape[1]), (0, 0), (0, 0)))

    return feed


def fp32_scores(network: Network, inputs: NDArray[np.float32], threads: int = 1) -> Scores:
    """Return the scores that a search holds loadables to: of each output in fp32, before a Softmax that it ends in."""
    ends = dict.fromkeys(viewed(network, output.name) for output in network.outputs)
    names = [_before_softmax(network, name) for name in ends]
    found = Reference(network, names, threads=threads, batch_size=images_at_once(network)).run(inputs)
    return [found[name].reshape(len(inputs), -1) for name in names]


def _before_softmax(network: Network, name: str) -> str:
    layer = network.by_name.get(name)
    return layer.inputs[0] if layer is not None and isinstance(layer.operation, Softmax) else name


def device_scores(compiled: Compilation, program: Program, inputs: Values, threads: int) -> Scores:
    """Return the same of a loadable, in real units; with channels that fill up atoms behind the others."""
    softmaxes = [report for report in compiled.facts.before_softmax if report is not None]
    parts: dict[int | None, list[tuple[int, Values]]] = {report.operation: [] for report in softmaxes}

    def keep(operation: Operation, values: Values, first: int) -> None:
        parts[operation.index].append((first, values.copy()))

    steps = [report.operation for report in softmaxes if report.operation is not None]
    fed = {program.inputs[0].name: inputs}
    results = run_tensors(program, fed, threads=threads, on_step=keep, steps=steps)
    found = []
    for before, output, port in zip(
        compiled.facts.before_softmax, compiled.facts.outputs, program.outputs, strict=True
    ):
        if before is None:
            values, scale = results[port.name], output.scale
        else:
            ordered = sorted(parts[before.operation], key=lambda part: part[0])
            values, scale = np.concatenate([part for _, part in ordered]), before.scale
        found.append(values.reshape(len(inputs), -1).astype(np.float32) * np.float32(scale))
    return found


def scores_sqnr(exact: Scores, found: Scores) -> float:
    """Return the SQNR of a loadable's scores in dB: of several outputs the mean, so that each counts alike."""
    pairs = zip(exact, found, strict=True)
    return float(np.mean([sqnr(expected, values[:, : expected.shape[1]]) for expected, values in pairs]))


class _Search:
    """What is the same in all trials."""

    def __init__(
        self,
        network: Network,
        target: Target,
        mode: QuantizationMode,
        feed: Feed,
        scores: Scores,
        objective: Objective,
        threads: int,
    ) -> None:
        self._network, self._target, self._mode = network, target, mode
        self._feed, self._scores, self._objective, self._threads = feed, scores, objective, threads

    def steps(self, table: CalibrationTable, clips: Mapping[str, float]) -> WeightSteps:
        """Return the weights of clipped layers as steps of a part of the scale that the compiler would choose."""
        layers: dict[str, LayerSteps] = {}
        if clips:
            chosen = chosen_scales(self._network, table, self._target, self._mode)
            for name, clip in clips.items():
                operation = self._network.by_name[name].operation
                assert isinstance(operation, Convolution | InnerProduct), "as the moves are"
                scales = (chosen[name] * np.float32(clip)).astype(np.float32)
                layers[name] = LayerSteps(nearest_steps(operation.weights, scales), scales)
        return WeightSteps(layers)

    def value(self, table: CalibrationTable, clips: Mapping[str, float]) -> float:
        """Return the SQNR of a loadable's scores in dB."""
        network = with_steps(self._network, self.steps(table, clips))
        compiled = compile_network(network, table, self._target, Precision.INT8, self._mode, objective=self._objective)
        inputs = self._feed(table, compiled.loadable.inputs[0].c)
        program = decode(compiled.loadable, self._target)
        return scores_sqnr(self._scores, device_scores(compiled, program, inputs, self._threads))
