"""What a configuration says, as typed records: cases, variants, runs, and which runs belong together."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from nvdla_quant.configuration import sweep
from nvdla_quant.configuration.sources import is_onnx
from nvdla_quant.configuration.sweep import EQUALIZED
from nvdla_quant.jobs.downloads import Source

CLASSIFICATION = "classification"
"""The metric that goes by labels; all others go by fp32's outputs."""
METHODS = {"correction": "none", "rounding": "nearest", "search": "none"}
"""Keys of a variant that say how its weights and scales are bettered, and the choice that leaves them as they are."""


@dataclass(frozen=True)
class Table:
    """One way to make a fixed table from a calibration cache.

    With `caffe` it is that of an ONNX model as it is written in Caffe, where some layers are several.
    """

    preparation: str
    feeding: str
    unify_scales: bool
    caffe: bool = False

    @property
    def name(self) -> str:
        """Folder of the table: preparation, feeding, `not-unified` where scales are left alone, and `caffe`."""
        words = ("" if self.unify_scales else "-not-unified") + ("-caffe" if self.caffe else "")
        return f"{self.preparation}-{self.feeding}{words}"

    @property
    def network(self) -> str:
        """Folder of the network that it belongs to: the preparation, and the stock runtime, which feeds raw pixels."""
        return self.preparation + ("" if self.feeding == "quantized" else f"-{self.feeding}")

    @property
    def is_equalized(self) -> bool:
        """Return whether it belongs to the equalized network, whose calibration it is made from."""
        return self.preparation == EQUALIZED


@dataclass(frozen=True)
class Variant:
    """One way to compile and run a case on a target; see the schema for the fields."""

    name: str
    precision: str
    mode: str | None
    calibrator: str | None
    table: Table
    targets: tuple[str, ...]
    compiler: str
    runtime: str
    correction: str
    rounding: str
    search: str

    @property
    def is_refined(self) -> bool:
        """Return whether the steps of weights and biases are chosen before the compiler sees them."""
        return (self.correction, self.rounding) != (METHODS["correction"], METHODS["rounding"])

    @property
    def is_searched(self) -> bool:
        """Return whether the scales of the fixed table are searched."""
        return self.search != METHODS["search"]

    @property
    def has_methods(self) -> bool:
        """Return whether anything betters what a calibrator alone gives."""
        return self.is_refined or self.is_searched or self.table.is_equalized

    @property
    def without_methods(self) -> "Variant":
        """Return the nameless variant that differs in its methods alone."""
        table = replace(self.table, preparation="fold") if self.table.is_equalized else self.table
        nothing: dict[str, Any] = dict(METHODS)
        return replace(self, name="", table=table, **nothing)


@dataclass(frozen=True)
class Metric:
    """What a case is measured by; see the schema for the fields.

    Attributes
    ----------
    kind : str
        ``classification``, ``fidelity`` or ``command``.
    """

    kind: str = CLASSIFICATION
    argmax: bool = False
    peak: float | None = None
    command: tuple[str, ...] = ()
    better: str = "higher"


@dataclass(frozen=True)
class Case:
    """A model measured on a data set, by what, and what it sets otherwise than their and the calibrators' records."""

    model: str
    dataset: str
    metric: Metric = field(default=Metric(), compare=False)
    overrides: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def is_classified(self) -> bool:
        """Return whether labels say what is right."""
        return self.metric.kind == CLASSIFICATION


@dataclass(frozen=True)
class Run:
    """A case, a target and a variant: one loadable."""

    case: Case
    target: str
    variant: Variant


@dataclass(frozen=True)
class Group:
    """Runs of one case and target that differ in nothing but the seed of their calibrator.

    Attributes
    ----------
    runs : tuple[Run, ...]
        At least one, in the order of the report.
    name : str
        The variants' name without the seed.
    images : int or None
        Number of calibration images; None in fp16, and where the scales are the model's own.
    series : str
        The name without the number of images either: groups that differ in that number alone share it.
    calibrator : str or None
        The calibrator's name without the seed.
    """

    runs: tuple[Run, ...]
    name: str
    images: int | None
    series: str
    calibrator: str | None

    @property
    def case(self) -> Case:
        """Return the case of all runs."""
        return self.runs[0].case

    @property
    def target(self) -> str:
        """Return the target of all runs."""
        return self.runs[0].target

    @property
    def variants(self) -> tuple[str, ...]:
        """Return the names of the variants."""
        return tuple(run.variant.name for run in self.runs)


@dataclass(frozen=True)
class Configuration:
    """A validated configuration.

    Attributes
    ----------
    settings : Mapping
        The configuration as the schema describes it: defaults filled, every file a path, lists of calibrators made
        into calibrators.
    cases : tuple[Case, ...]
        Models on data sets, in the order of the file; those with any run.
    variants : Mapping[str, Variant]
        Variants by name, in the order of the file; those with any run.
    families : Mapping[str, str]
        Name of the record that each calibrator was made from.
    runs : tuple[Run, ...]
        What is compiled and measured, in the order of the report.
    sources : Mapping[str, Source]
        Where files come from that are downloaded or taken out of an archive, by path.
    notes : tuple[str, ...]
        What a user should hear once: parts of the file that nothing comes of.
    specs : Mapping[str, str]
        Paths of the specifications of the targets that are the user's own, by name.
    """

    settings: Mapping[str, Any]
    cases: tuple[Case, ...]
    variants: Mapping[str, Variant]
    families: Mapping[str, str]
    runs: tuple[Run, ...]
    sources: Mapping[str, Source]
    notes: tuple[str, ...] = ()
    specs: Mapping[str, str] = field(default_factory=dict)

    def preprocessing(self, case: Case) -> Mapping[str, Any]:
        """Return how the images of `case` are prepared."""
        return {**self.settings["models"][case.model]["preprocessing"], **case.overrides.get("preprocessing", {})}

    def dataset(self, case: Case) -> Mapping[str, Any]:
        """Return the data set of `case`, with what the case sets otherwise."""
        return {**self.settings["datasets"][case.dataset], **case.overrides.get("dataset", {})}

    def calibrator(self, case: Case, name: str) -> Mapping[str, Any]:
        """Return a calibrator as `case` has it: what is set for its family, then for itself."""
        changed = case.overrides.get("calibrators", {})
        return {**self.settings["calibrators"][name], **changed.get(self.families[name], {}), **changed.get(name, {})}

    @cached_property
    def classified(self) -> tuple[Case, ...]:
        """Cases that are measured by labels."""
        return tuple(case for case in self.cases if case.is_classified)

    @cached_property
    def measured(self) -> tuple[Case, ...]:
        """Cases that are measured by fp32's outputs."""
        return tuple(case for case in self.cases if not case.is_classified)

    def runs_of(self, case: Case) -> tuple[Run, ...]:
        """Return the runs of one case."""
        return tuple(run for run in self.runs if run.case == case)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Return the runs, those together that differ in the seed of the calibrator alone."""
        members: dict[Any, list[Run]] = {}
        for run in self.runs:
            record = {} if run.variant.calibrator is None else self.calibrator(run.case, run.variant.calibrator)
            rest = json.dumps({key: value for key, value in record.items() if key != "seed"}, sort_keys=True)
            name = run.variant.name.replace(run.variant.calibrator or run.variant.name, "")
            same = (run.case, run.target, replace(run.variant, name=name, calibrator=None), rest)
            members.setdefault(same, []).append(run)
        return tuple(self._group(runs) for runs in members.values())

    def _group(self, runs: list[Run]) -> Group:
        """Name a group after its first run."""
        variant, calibrator = runs[0].variant, runs[0].variant.calibrator
        if calibrator is None:
            return Group(tuple(runs), variant.name, None, variant.name, None)
        record = self.calibrator(runs[0].case, calibrator)
        if calibrator in self.qdq_calibrators:
            return Group(tuple(runs), variant.name, None, variant.name, calibrator)
        seedless = sweep.without(calibrator, "seed", record["seed"]) if len(runs) > 1 else calibrator
        series = sweep.without(seedless, "images", record["images"])
        name = variant.name.replace(calibrator, seedless)
        return Group(tuple(runs), name, record["images"], name.replace(seedless, series), seedless)

    def equalized_calibrators(self, case: Case) -> tuple[str, ...]:
        """Return the names of the calibrators that see the equalized network of `case`."""
        variants = (run.variant for run in self.runs_of(case))
        found = (one.calibrator for one in variants if one.table.is_equalized and one.calibrator is not None)
        return tuple(dict.fromkeys(found))

    def mode_pairs(self, case: Case) -> tuple[tuple[Run, Run], ...]:
        """Return the runs of `case` that differ in nothing but the mode: per-kernel and per-filter."""
        modes: dict[Any, dict[str, Run]] = {}
        for run in self.runs_of(case):
            mode = run.variant.mode
            if mode is not None:
                name = run.variant.name.replace(mode, "")
                modes.setdefault((run.target, replace(run.variant, name=name, mode=None)), {})[mode] = run
        return tuple((found["per-kernel"], found["per-filter"]) for found in modes.values() if len(found) == 2)

    def method_pairs(self, case: Case) -> tuple[tuple[Run, Run], ...]:
        """Return the runs of `case` with the network as it is, and beside each the same with one or more methods."""
        runs = [run for run in self.runs_of(case) if run.variant.mode is not None]
        plain = {(run.target, run.variant.without_methods): run for run in runs if not run.variant.has_methods}
        found = ((plain.get((run.target, run.variant.without_methods)), run) for run in runs if run.variant.has_methods)
        return tuple((before, after) for before, after in found if before is not None)

    def is_onnx(self, model: str) -> bool:
        """Return whether a model is an ONNX file."""
        return is_onnx(self.settings["models"][model])

    def models(self, *, onnx: bool) -> tuple[str, ...]:
        """Return the names of the models that are ONNX files, or of those that are Caffe's."""
        return tuple(name for name in self.settings["models"] if self.is_onnx(name) == onnx)

    @property
    def cut_models(self) -> tuple[str, ...]:
        """Return the names of the Caffe models that have a tail cut off; an ONNX model loses it when it is read."""
        return tuple(name for name in self.models(onnx=False) if "cut_at" in self.settings["models"][name])

    def in_caffe(self, model: str, variant: Variant) -> bool:
        """Return whether a variant compiles an ONNX model as Caffe's files: NVIDIA's compiler reads no others."""
        return self.is_onnx(model) and variant.compiler == "nvdla_compiler"

    def table(self, model: str, variant: Variant) -> Table:
        """Return how the fixed table of a variant is made for a model."""
        return replace(variant.table, caffe=self.in_caffe(model, variant))

    @cached_property
    def tables(self) -> Mapping[str, Table]:
        """Tables that the int8 variants use, by name."""
        models = self.settings["models"]
        tables = (self.table(m, v) for v in self.variants.values() if v.calibrator is not None for m in models)
        return {table.name: table for table in tables}

    @property
    def networks(self) -> Mapping[str, Table]:
        """Forms of the network that the variants compile, by the name of their folder."""
        return {v.table.network: v.table for v in self.variants.values()}

    @cached_property
    def tensorrt_calibrators(self) -> tuple[str, ...]:
        """Names of the calibrators that TensorRT runs."""
        records = self.settings["calibrators"].items()
        return tuple(name for name, record in records if record["method"].startswith("tensorrt-"))

    @cached_property
    def qdq_calibrators(self) -> tuple[str, ...]:
        """Names of the calibrators that take the scales of a quantized ONNX model."""
        records = self.settings["calibrators"].items()
        return tuple(name for name, record in records if record["method"] == "qdq")

    @cached_property
    def quantized_cases(self) -> tuple[Case, ...]:
        """Cases whose model's own scales are used, so that onnxruntime's int8 result of the same file is to compare."""
        return tuple(
            case
            for case in self.classified
            if any(run.variant.calibrator in self.qdq_calibrators for run in self.runs_of(case))
        )

    @cached_property
    def engines(self) -> tuple[str, ...]:
        """What TensorRT runs beside NVDLA: everything, if a variant has a calibrator of TensorRT's own.

        In int8 with the caches of the original network, which is what it runs.
        """
        chosen = [v for v in self.variants.values() if v.calibrator in self.tensorrt_calibrators]
        used = dict.fromkeys(v.calibrator for v in chosen if not v.table.is_equalized)
        return ("fp32", "fp16", *(f"int8-{name}" for name in used)) if chosen else ()

    @property
    def shards(self) -> tuple[str, ...]:
        """Names of the shards of a case's test images."""
        count = self.settings["shards"]
        return tuple(f"{i}-of-{count}" for i in range(1, count + 1))
