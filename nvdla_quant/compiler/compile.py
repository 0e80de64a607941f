"""The compiler: a network, its calibration table and a target in; a loadable and a report out."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from nvdla_quant import __version__
from nvdla_quant.compiler.claim.builder import claim_of
from nvdla_quant.compiler.claim.file import claim_as_json
from nvdla_quant.compiler.claim.records import Claim
from nvdla_quant.compiler.emission.descriptors import Place, Plan
from nvdla_quant.compiler.emission.emit import Bindable, Shared, emit, share
from nvdla_quant.compiler.emission.memory import PAGE, Pool, allocate, largest_live, lay_out
from nvdla_quant.compiler.emission.pack import pack_image_weights, pack_operands, pack_weights
from nvdla_quant.compiler.lowering.layout import Surface, offset_in, surfaces_of
from nvdla_quant.compiler.lowering.lower import lower
from nvdla_quant.compiler.lowering.operations import (
    ENGINE_OF,
    CdpProgram,
    Converter,
    ConvolutionStep,
    InterleaveStep,
    Lowered,
    NormalisationStep,
    Operation,
    PointStep,
    SdpOperation,
    SdpProgram,
)
from nvdla_quant.compiler.lowering.price import PRICES, Objective
from nvdla_quant.compiler.lowering.schedule import Schedule, written
from nvdla_quant.compiler.lowering.split import split
from nvdla_quant.compiler.lowering.tile import ConvolutionTiling, operations_of, tile_convolution, work_of
from nvdla_quant.compiler.numbers.halves import convert_convolution, convert_points, half_scales
from nvdla_quant.compiler.numbers.luts import half_normalisation_table, normalisation_table
from nvdla_quant.compiler.numbers.quantize import (
    QuantizedConvolution,
    WeightChange,
    effective_scales,
    quantize_convolution,
    quantize_points,
)
from nvdla_quant.compiler.report import (
    ConvolutionReport,
    OperationReport,
    Report,
    TensorReport,
    WeightReport,
)
from nvdla_quant.errors import CompileError, ConfigError
from nvdla_quant.hardware.cbuf import Price
from nvdla_quant.hardware.targets import TARGETS, Precision, QuantizationMode, Target
from nvdla_quant.loadable.records import Loadable
from nvdla_quant.loadable.writer import serialize_loadable
from nvdla_quant.network.findings import Finding
from nvdla_quant.network.graph import Network
from nvdla_quant.network.passes import for_hardware
from nvdla_quant.network.views import viewed
from nvdla_quant.support.check import PIXEL_RULE, check
from nvdla_quant.table.table import CalibrationTable

BUILTIN = "builtin"
"""Name of this compiler in the configuration and in reports."""

MEMORY_LIMIT = 1.2
"""Activations over the largest sum of live tensors, beyond which units no longer overlap."""
PLAIN = {
    Precision.INT8: SdpProgram(None, None, Converter(1, 0)),
    Precision.FP16: SdpProgram(None, None, None),
}
"""SDP programs that copy."""


@dataclass(frozen=True)
class Compilation:
    """A loadable and what there is to say about it."""

    loadable: Loadable
    facts: Report
    claim: Claim

    @cached_property
    def data(self) -> bytes:
        """Bytes of the `.nvdla` file."""
        return serialize_loadable(self.loadable)

    @cached_property
    def report(self) -> dict[str, Any]:
        """Facts and claim as ``compile.json`` holds them."""
        facts = asdict(self.facts)
        for key in ("weights", "specification"):
            if not facts[key]:
                del facts[key]
        return {**facts, "claim": claim_as_json(self.claim)}


def compile_network(
    network: Network,
    table: CalibrationTable | None,
    target: Target,
    precision: Precision | str,
    mode: QuantizationMode | str | None = None,
    compiler: str = BUILTIN,
    keep_apart: bool = True,
    objective: Objective | str = Objective.CYCLES,
) -> Compilation:
    """Compile `network`.

    What `passes.for_hardware` rewrites is rewritten first: BatchNorm and Scale are folded, wide poolings taken apart,
    groups written out.

    Parameters
    ----------
    network : Network
        With its weights.
    table : CalibrationTable or None
        Fixed table: scales by layer name (the input's by blob name). In fp16 it says which tensors need a scale of
        their own, as their values exceed fp16's range, and how far tables reach; without one, none has.
    target, precision : Target, Precision
        What to compile for.
    mode : QuantizationMode, optional
        int8: one weight scale for a layer (the default, as `nvdla_compiler`'s), or one for each filter.
    compiler : str
        Backend as the configuration names it; this is ``builtin``.
    keep_apart : bool
        Whether a convolution waits for the end of the one before it where they divide the buffer differently: NVIDIA's
        C-model needs that, the RTL keeps them apart itself (docs/hardware/buffer.md).
    objective : Objective
        What divisions of the buffer are chosen by; all give the same results.

    Raises
    ------
    CompileError
        `support.check` finds an error, int8 has no table, or scales are too far apart; the message names the layers.
    ConfigError
        `compiler` is another backend.
    TableError
        The table lacks an entry; the message names it.
    """
    if compiler != BUILTIN:
        raise ConfigError(f"compiler is {compiler!r}; this compiler is {BUILTIN!r}")
    precision, mode = Precision(precision), QuantizationMode(mode or QuantizationMode.PER_KERNEL)
    warnings = _refuse(check(network, target, precision, mode), network.name, target, precision)
    rewritten = for_hardware(network)
    price = PRICES[Objective(objective)]
    lowered = split(lower(rewritten, target, precision), target, precision, price)
    scales: Mapping[str, float]
    remarks: tuple[str, ...] = ()
    ranges: dict[str, float] = {}
    if precision is Precision.FP16:
        if table is not None:
            ranges = {name: 127 * scale for name, scale in effective_scales(lowered, table)[0].items()}
        scales, remarks = half_scales(lowered, ranges)
    elif table is None:
        raise CompileError(f"network {network.name!r}: int8 needs a calibration table, none was given")
    else:
        scales, remarks = effective_scales(lowered, table)
    stages = _Stages(lowered, scales, ranges, target, precision, mode, keep_apart, price)
    # Parts of a layer say the same.
    of_weights = dict.fromkeys(remark for result in stages.convolutions.values() for remark in result.remarks)
    facts = stages.report((*warnings, *remarks, *of_weights))
    made_for = target, precision, mode if precision is Precision.INT8 else None
    claim = claim_of(rewritten, lowered, stages.schedule.operations, scales, made_for)
    return Compilation(stages.loadable(rewritten), facts, claim)


def _specification(target: Target) -> dict[str, Any]:
    """Return what a target is, as JSON can hold it: a loadable has no field for it.

    What its cycles follow from besides is no part of it: all targets have the same.
    """
    fields = {name: value for name, value in asdict(target).items() if name != "timing"}
    return {**fields, "precisions": sorted(map(str, target.precisions))}


def _refuse(findings: tuple[Finding, ...], network: str, target: Target, precision: Precision) -> tuple[str, ...]:
    """Messages of the warnings; errors end the compilation."""
    lines = [
        f"{f'layer {finding.layer!r}' if finding.layer else 'network'}: {finding.message}"
        + (f" (rewrite: {finding.rewrite})" if finding.rewrite else "")
        for finding in findings
    ]
    errors = [line for line, finding in zip(lines, findings, strict=True) if finding.severity == "error"]
    if errors:
        raise CompileError(
            f"network {network!r} cannot be compiled for {target.name}, {precision}: {'; '.join(errors)}"
        )
    return tuple(lines)


class _Stages:
    """Every stage behind lowering, in order; each value is made once from those before it."""

    def __init__(
        self,
        lowered: Lowered,
        scales: Mapping[str, float],
        ranges: Mapping[str, float],
        target: Target,
        precision: Precision,
        mode: QuantizationMode,
        keep_apart: bool,
        price: Price,
    ) -> None:
        self.lowered, self.scales, self.ranges, self.price = lowered, scales, ranges, price
        self.target, self.precision, self.mode = target, precision, mode
        self.surfaces: Mapping[str, Surface] = surfaces_of(lowered, target, precision)
        steps = tuple(enumerate(lowered.steps))
        self.convolutions = {index: self._quantized(step) for index, step in steps if isinstance(step, ConvolutionStep)}
        self.programs: dict[int, SdpProgram] = {index: result.program for index, result in self.convolutions.items()}
        self.programs |= {index: self._points(step) for index, step in steps if isinstance(step, PointStep)}
        self.programs |= {index: PLAIN[precision] for index, step in steps if isinstance(step, InterleaveStep)}
        self.normalisations = {
            index: self._normalised(step) for index, step in steps if isinstance(step, NormalisationStep)
        }
        self.tilings = {index: self._tiled(step) for index, step in steps if isinstance(step, ConvolutionStep)}
        operations: list[Operation] = []
        for index, step in steps:
            operations += operations_of(index, step, self.surfaces, target, self.tilings.get(index))
        self.weights = {index: self._packed(index) for index in self.convolutions}
        self.operands = {
            (index, name): pack_operands(unit.operands, 2 if precision is Precision.FP16 else 1, target)
            for index, program in self.programs.items()
            for name, unit in (("x1", program.x1), ("x2", program.x2))
            if unit is not None and unit.operands is not None
        }
        placed = {*lowered.inputs, *lowered.outputs, *lowered.parts}
        sizes = {name: surface.size for name, surface in self.surfaces.items() if name not in placed}
        buffers = {
            index: (tiling.division.data, tiling.division.weights, self.surfaces[lowered.steps[index].source].image)
            for index, tiling in self.tilings.items()
        }
        self.schedule = Schedule(tuple(operations), lowered.parts, buffers=buffers if keep_apart else {})
        self._check_pixels()
        self.activations: Pool = allocate(self.schedule, sizes)
        self.live_bytes = largest_live(self.schedule, sizes)
        if self.activations.size > max(MEMORY_LIMIT * self.live_bytes, PAGE):
            self.schedule = replace(self.schedule, serial=True)
            self.activations = allocate(self.schedule, sizes)

    def _quantized(self, step: ConvolutionStep) -> QuantizedConvolution:
        if self.precision is Precision.FP16:
            return convert_convolution(step, self.scales)
        return quantize_convolution(step, self.scales, self.mode)

    def _points(self, step: PointStep) -> SdpProgram:
        return (
            convert_points(step, self.scales)
            if self.precision is Precision.FP16
            else quantize_points(step, self.scales)
        )

    def _normalised(self, step: NormalisationStep) -> CdpProgram:
        if self.precision is Precision.FP16:
            return half_normalisation_table(step.operation, self.ranges.get(step.source))
        scales = self.scales[step.source], self.scales[step.output]
        channels = self.surfaces[step.source].channels
        return normalisation_table(step.operation, *scales, channels, f"layer {step.layers[-1]!r}")

    def _tiled(self, step: ConvolutionStep) -> ConvolutionTiling:
        source, output = self.lowered.tensors[step.source], self.lowered.tensors[step.output]
        element_bytes = self.surfaces[step.source].element_bytes
        work = work_of(step, source, output, step.source in self.lowered.images, element_bytes)
        return tile_convolution(step, work, self.target, self.price)

    def _packed(self, index: int) -> bytes:
        step, weights = self.lowered.steps[index], self.convolutions[index].weights
        if self.surfaces[step.source].image:
            return pack_image_weights(weights, self.target, self.tilings[index].post_extension)
        return pack_weights(weights, self.target)

    def loadable(self, network: Network) -> Loadable:
        """Return the loadable; `network` gives the blob names that inputs and outputs are bound by."""
        data: dict[str, bytes] = {}
        names: dict[bytes, str] = {}
        for index in self.programs:
            for contents in self._contents(index):
                # The same bytes, as of one kernel for several parts, are stored once.
                if contents not in names:
                    names[contents] = f"tb-{len(data)}"
                    data[names[contents]] = contents
        pool = lay_out({name: len(content) for name, content in data.items()})
        blobs = {viewed(network, tensor.name): tensor.blob for tensor in (*network.inputs, *network.outputs)}
        inputs, outputs = (
            [Bindable(name, blobs[name], self.surfaces[name]) for name in bound]
            for bound in (self.lowered.inputs, self.lowered.outputs)
        )
        shared = share((pool.offsets, pool.size), self.activations.size, inputs, outputs, self.target, self.precision)

        def place(content: bytes) -> Place:
            return Place(1, pool.offsets[names[content]], len(content))

        plan = Plan(
            target=self.target,
            precision=self.precision,
            steps=self.lowered.steps,
            tilings=self.tilings,
            programs=self.programs,
            normalisations=self.normalisations,
            surfaces=self.surfaces,
            tensors=self._tensor_places(shared, address=2 if data else 1),
            weights={index: place(content) for index, content in self.weights.items()},
            operands={key: place(content) for key, content in self.operands.items()},
            scales=self.scales,
        )
        return emit(self.schedule, plan, shared, data)

    def _contents(self, index: int) -> list[bytes]:
        """Weights and operands of a step."""
        found = [self.weights.get(index), *(self.operands.get((index, name)) for name in ("x1", "x2"))]
        return [content for content in found if content is not None]

    def _tensor_places(self, shared: Shared, address: int) -> dict[str, Place]:
        """Where each tensor lies; `address` is the activation pool's."""
        places = {
            name: Place(address, offset, self.surfaces[name].size) for name, offset in self.activations.offsets.items()
        }
        places |= {name: Place(number, 0, self.surfaces[name].size) for number, name in shared.bound.items()}
        for name, part in self.lowered.parts.items():
            whole, surface = places[part.whole], self.surfaces[name]
            places[name] = Place(whole.address, whole.offset + offset_in(part, surface), surface.size)
        return places

    def _check_pixels(self) -> None:
        """Refuse an SDP operation on one pixel of a larger tensor: hardware ignores how far its surfaces are apart."""
        for operation in self.schedule.operations:
            if not isinstance(operation, SdpOperation):
                continue
            step = self.lowered.steps[operation.step]
            # What a deconvolution's columns are interleaved to is as wide as they are.
            given = operation.source if isinstance(step, InterleaveStep) else None
            for window in filter(None, (operation.source, operation.addend, operation.destination)):
                surface, shown = self.surfaces[window.tensor], given or window
                pixel = (shown.rows, shown.columns) == (1, 1)
                if pixel and surface.surfaces > 1 and surface.surface_stride != surface.atom:
                    raise CompileError(f"layer {step.layers[0]!r}: {PIXEL_RULE}")

    def report(self, warnings: tuple[str, ...]) -> Report:
        """Return what was compiled, and how."""
        lowered, operations = self.lowered, self.schedule.operations
        units = [ENGINE_OF[type(op)].name if type(op) in ENGINE_OF else "CPU" for op in operations]
        data = dict.fromkeys(content for index in self.programs for content in self._contents(index))
        bindable = sum(self.surfaces[name].size for name in (*lowered.inputs, *lowered.outputs))
        dram = {"data": lay_out({str(i): len(content) for i, content in enumerate(data)}).size}
        dram |= {"activations": self.activations.size, "bindable": bindable}
        dram["peak"] = sum(dram.values())
        return Report(
            compiler=BUILTIN,
            version=__version__,
            target=self.target.name,
            precision=str(self.precision),
            mode=str(self.mode) if self.precision is Precision.INT8 else None,
            operations=tuple(
                OperationReport(unit, lowered.steps[op.step].layers) for unit, op in zip(units, operations, strict=True)
            ),
            units=dict(sorted(Counter(units).items())),
            convolutions=tuple(self._convolution_report(index, tiling) for index, tiling in self.tilings.items()),
            multiply_accumulates=sum(self._multiplications(index) for index in self.convolutions),
            weight_bytes=sum(len(content) for content in self.weights.values()),
            operand_bytes=sum(len(content) for content in self.operands.values()),
            dram_bytes=dram,
            live_bytes=self.live_bytes,
            serial=self.schedule.serial,
            specification={} if self.target in TARGETS.values() else _specification(self.target),
            inputs=tuple(self._tensor_report(name) for name in lowered.inputs),
            outputs=tuple(self._tensor_report(name) for name in lowered.outputs),
            before_softmax=tuple(
                self._tensor_report(lowered.before_softmax[name]) if name in lowered.before_softmax else None
                for name in lowered.outputs
            ),
            warnings=warnings,
            weights=self._weight_reports(),
        )

    def _weight_reports(self) -> tuple[WeightReport, ...]:
        """Return what became of weights that came quantized, the parts of a layer together."""
        changes: dict[str, list[WeightChange]] = {}
        for index, result in self.convolutions.items():
            if result.change is not None:
                changes.setdefault(self.lowered.steps[index].layers[0], []).append(result.change)
        return tuple(
            WeightReport(
                layer,
                all(part.honoured for part in parts),
                max(part.steps for part in parts),
                max(part.relative for part in parts),
            )
            for layer, parts in changes.items()
        )

    def _convolution_report(self, index: int, tiling: ConvolutionTiling) -> ConvolutionReport:
        work, division = tiling.work, tiling.division
        return ConvolutionReport(
            layer=self.lowered.steps[index].layers[0],
            kernels=work.kernels,
            channels=work.channels,
            data_banks=division.data,
            weight_banks=division.weights,
            mode=division.mode,
            entries_per_slice=max(work.entries(self.target, span.inputs) for span in division.columns),
            row_runs=len(division.rows),
            column_runs=len(division.columns),
            runs=len(division.rows) * len(division.columns),
            dram_bytes_read=division.bytes,
            post_extension=tiling.post_extension,
        )

    def _multiplications(self, index: int) -> int:
        step = self.lowered.steps[index]
        assert isinstance(step, ConvolutionStep)
        output = self.surfaces[step.output]
        return step.weights.size * output.height * output.width

    def _tensor_report(self, name: str) -> TensorReport:
        parts = self.lowered.parts
        writers = [
            index
            for index, operation in enumerate(self.schedule.operations)
            if (target := written(operation)) is not None
            and name in (target.tensor, parts[target.tensor].whole if target.tensor in parts else None)
        ]
        return TensorReport(name, self.lowered.tensors[name].chw, self.scales[name], writers[-1] if writers else None)
