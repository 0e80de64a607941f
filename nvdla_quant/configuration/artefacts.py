"""Every file that a configuration implies: where it lies, and which of them go into what.

The header of the Snakefile has the grammar of the paths. Nothing parses them; they are made here, from names.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nvdla_quant.configuration.records import Case, Configuration, Run, Table, Variant
from nvdla_quant.configuration.sources import files_in, files_of, model_files
from nvdla_quant.configuration.sweep import EQUALIZED, calibration_folder, calibration_name

FIGURES = ("accuracy", "time", "costs", "roofline", "images", "layers", "scales", "classes")
"""Figures of the report."""
FIDELITY_FIGURE = "fidelity"
"""The figure that it has besides, where a case is measured by fp32's outputs."""
TABLES = ("summary.tsv", "summary.tex", "summary.md", "pairs.tsv", "seeds.tsv")
"""Tables of the sweep."""
IMPORTED = ("imported/network.onnx", "imported/names.json", "imported/remarks.txt", "imported/size.json")
"""What an ONNX model is read to, below ``network/``."""
CUT = ("cut/deploy.prototxt", "cut/weights.caffemodel")
"""What a Caffe model is cut to, below ``network/``, where it has a tail to cut off."""
PREPARED, CAFFE = "network.onnx", ("deploy.prototxt", "weights.caffemodel")
"""A form of the network, below its folder: of an ONNX model, and of a Caffe model or where Caffe's files are needed."""


def prepared_files(configuration: Configuration, model: str, variant: Variant) -> list[str]:
    """Return the files of the network that a variant compiles, below the folder of a case."""
    return form_files(configuration, model, configuration.table(model, variant))


def is_compiled_here(run: Run) -> bool:
    """Return whether this package compiles a run's loadable, and so says what its operations stand for."""
    return run.variant.compiler == "builtin"


def form_files(configuration: Configuration, model: str, table: Table) -> list[str]:
    """Return the files of the network that a table belongs to, below the folder of a case."""
    return [f"network/{table.network}/{name}" for name in _form_names(configuration, model, table.caffe)]


def equalized_files(configuration: Configuration, model: str) -> list[str]:
    """Return the files of the equalized network, below the folder of a case: of an ONNX model no Caffe's."""
    return [f"network/{EQUALIZED}/{name}" for name in _form_names(configuration, model)]


def _form_names(configuration: Configuration, model: str, caffe: bool = False) -> tuple[str, ...]:
    return (PREPARED,) if configuration.is_onnx(model) and not caffe else CAFFE


def made_by_methods(variant: Variant) -> list[str]:
    """Return what better weights and scales of a variant are in, below the folder of a run."""
    searched = ["table.searched.json", "weights.searched.npz", "search.tsv"] if variant.is_searched else []
    return [*searched, *(["weights.steps.npz", "refinement.tsv"] if variant.is_refined else [])]


@dataclass(frozen=True)
class Artefacts:
    """The artefacts of a configuration.

    Attributes
    ----------
    configuration : Configuration
        What runs.
    results : str
        Folder of the results.
    """

    configuration: Configuration
    results: str

    @property
    def manifest(self) -> str:
        """Return the path of the manifest, which lists all but itself and the report."""
        return f"{self.results}/manifest.json"

    @property
    def page(self) -> str:
        """Return the path of the report."""
        return f"{self.results}/report/report.html"

    def case_folder(self, case: Case) -> str:
        """Return the folder of a case."""
        return f"{self.results}/{case.model}/{case.dataset}"

    def run_folder(self, run: Run) -> str:
        """Return the folder of a case's target and variant."""
        return f"{self.case_folder(run.case)}/{run.target}/{run.variant.name}"

    @cached_property
    def accuracies(self) -> list[str]:
        """Accuracy of fp32 for each case, of TensorRT, of quantized files, then of variants, in the report's order."""
        references = [f"{self.case_folder(case)}/reference/accuracy.json" for case in self.configuration.classified]
        quantized = [f"{self.case_folder(case)}/quantized/accuracy.json" for case in self.configuration.quantized_cases]
        return [*references, *self._engine_files("json"), *quantized, *self._of_classified("accuracy.json")]

    @cached_property
    def comparisons(self) -> list[str]:
        """Comparisons of every variant with fp32, then those within each case, of those measured by labels."""
        cases = [f"{self.case_folder(case)}/comparisons.json" for case in self.configuration.classified]
        return [*self._of_classified("comparison.json"), *cases]

    @cached_property
    def fidelities(self) -> list[str]:
        """Fidelity of every run of a case that is measured by fp32's outputs."""
        return self._of(self.configuration.measured, "fidelity.json")

    @cached_property
    def fidelity_pairs(self) -> list[str]:
        """Comparisons within each of these cases."""
        return [f"{self.case_folder(case)}/fidelity.pairs.json" for case in self.configuration.measured]

    @property
    def fidelity_table(self) -> str:
        """Return the path of the table of all their outputs."""
        return f"{self.results}/fidelity.tsv"

    @property
    def is_verified(self) -> bool:
        """Return whether loadables are held to the float network."""
        return bool(self.configuration.settings["verify"]["images"])

    @cached_property
    def verdicts(self) -> list[str]:
        """Verdict on every loadable, unless the configuration skips them."""
        return self._of_runs("verdict.json") if self.is_verified else []

    @cached_property
    def layers(self) -> list[str]:
        """Layers of every loadable, in the order of `verdicts`."""
        return self._of_runs("layers.tsv") if self.is_verified else []

    @cached_property
    def loadables(self) -> list[str]:
        """Loadable of every run."""
        return self._of_runs("loadable.nvdla")

    @cached_property
    def claims(self) -> list[str]:
        """What this compiler says that the operations of its loadables stand for; NVIDIA's says nothing."""
        return [f"{self.run_folder(run)}/compile.json" for run in self.configuration.runs if is_compiled_here(run)]

    @cached_property
    def costs(self) -> list[str]:
        """How long every loadable takes on the hardware, in the order of `loadables`."""
        return self._of_runs("cost.json")

    @cached_property
    def estimates(self) -> list[dict[str, Any]]:
        """What an estimate of every loadable rests on besides, in the order of `loadables`."""
        specs, settings = self.configuration.specs, self.configuration.settings
        return [
            {
                "model": run.case.model,
                "dataset": run.case.dataset,
                "target": run.target,
                "variant": run.variant.name,
                "hardware": {"name": run.target, "spec": specs[run.target]} if run.target in specs else run.target,
                "claimed": is_compiled_here(run),
                "clock": settings["clock"][run.target],
            }
            for run in self.configuration.runs
        ]

    @cached_property
    def raw_tables(self) -> list[str]:
        """Raw tables of the calibrators, in the order of `calibrators`."""
        return [
            f"{self.results}/{model}/{dataset}/{folder}/table.raw.json" for model, dataset, folder in self._calibrations
        ]

    @cached_property
    def raw_dumps(self) -> list[str]:
        """Folders of `nvdla_runtime`-style dumps, where the configuration asks for them."""
        wanted = self.configuration.settings["raw_dumps"]["format"] != "none"
        return self._of_runs(*(f"dumps/{shard}.dimg" for shard in self.configuration.shards)) if wanted else []

    @cached_property
    def exact(self) -> list[str]:
        """Artefacts that are the same bytes on every machine."""
        paths: list[str] = []
        for case in self.configuration.cases:
            runs = self.configuration.runs_of(case)
            names = [f"images/test-{shard}.npz" for shard in self.configuration.shards]
            seen = [run.variant.calibrator for run in runs if run.variant.calibrator is not None]
            unseen = self.configuration.qdq_calibrators
            names += [f"images/calibration-{calibrator}.npz" for calibrator in seen if calibrator not in unseen]
            names += [f"{run.target}/support.json" for run in runs]
            names += self._networks(case, equalized=False)
            paths += self._of_case(case, names)
        return paths

    @cached_property
    def processor_dependent(self) -> list[str]:
        """Artefacts that follow from fp32 sums, whose last bits may differ on another class of processor."""
        paths = [f"{self.results}/{name}" for name in TABLES]
        figures: tuple[str, ...] = FIGURES
        if self.configuration.measured:
            paths.append(self.fidelity_table)
            figures = (*FIGURES, FIDELITY_FIGURE)
        paths += [f"{self.results}/report/{name}.{suffix}" for name in figures for suffix in ("svg", "pdf")]
        for case in self.configuration.cases:
            names = [f"reference/{shard}.npz" for shard in self.configuration.shards]
            if case in self.configuration.quantized_cases:
                names += [f"quantized/{shard}.npz" for shard in self.configuration.shards]
            names += self._networks(case, equalized=True)
            for run in self.configuration.runs_of(case):
                calibrator, table = run.variant.calibrator, self.configuration.table(case.model, run.variant)
                if calibrator is not None:
                    folder = calibration_folder(calibrator, table.preparation)
                    names += [f"{folder}/calibration.cache", f"{folder}/table.raw.json"]
                    if calibrator in self.configuration.qdq_calibrators:
                        names.append(f"{folder}/ranges.tsv")
                    fixed = f"calibration/{calibrator}/{table.name}"
                    names += [f"{fixed}/table.fixed.json", f"{fixed}/changes.tsv"]
            paths += self._of_case(case, names)
        names = [
            "loadable.nvdla",
            "compile.json",
            "cost.json",
            *(f"dumps/{shard}.npz" for shard in self.configuration.shards),
        ]
        paths += self._of_runs(*names, *(("layers.tsv", "verdict.json") if self.is_verified else ()))
        for run in self.configuration.runs:
            paths += [f"{self.run_folder(run)}/{name}" for name in made_by_methods(run.variant)]
        paths += self._of(self.configuration.measured, "fidelity.npz") + self._numbers
        scored = self.accuracies + self.comparisons + self.fidelities + self.fidelity_pairs
        return paths + self._engine_files("npz") + scored

    @cached_property
    def inputs(self) -> list[str]:
        """Files of the user that the sweep reads."""
        settings, cases = self.configuration.settings, self.configuration.cases
        models = [settings["models"][case.model] for case in cases]
        datasets = [settings["datasets"][case.dataset] for case in cases]
        sources = [dataset[key] for dataset in datasets for key in ("source", "calibration_source") if key in dataset]
        paths = [path for model in models for path in model_files(model)]
        paths += [path for source in sources for path in files_of(source)]
        paths += [path for case in cases for path in files_in(case.metric.command)]
        return list(dict.fromkeys([*paths, *self.configuration.specs.values()]))

    @cached_property
    def groups(self) -> list[dict[str, Any]]:
        """Variants of the sweep, those together that differ in the calibrator's seed alone, as a report takes them."""
        return [
            {
                "model": group.case.model,
                "dataset": group.case.dataset,
                "target": group.target,
                "name": group.name,
                "series": group.series,
                "images": group.images,
                "variants": group.variants,
            }
            for group in self.configuration.groups
        ]

    @property
    def measured_groups(self) -> list[dict[str, Any]]:
        """Those of the cases that are measured by fp32's outputs."""
        cases = {(case.model, case.dataset) for case in self.configuration.measured}
        return [group for group in self.groups if (group["model"], group["dataset"]) in cases]

    @property
    def calibrators(self) -> list[dict[str, Any]]:
        """Calibrators that each case uses, under their names without the seed where the sweep repeats it.

        One that also sees the equalized network stands twice.
        """
        return [
            {"model": model, "dataset": dataset, "name": name}
            for (model, dataset, _), name in self._calibrations.items()
        ]

    @cached_property
    def _calibrations(self) -> dict[tuple[str, str, str], str]:
        """What each calibrator's scales are called, without the seed, by model, data set and folder of the cache."""
        found: dict[tuple[str, str, str], str] = {}
        for group in self.configuration.groups:
            for run in group.runs:
                preparation = run.variant.table.preparation
                if run.variant.calibrator is not None and group.calibrator is not None:
                    folder = calibration_folder(run.variant.calibrator, preparation)
                    name = calibration_name(group.calibrator, preparation)
                    found.setdefault((run.case.model, run.case.dataset, folder), name)
        return found

    def _networks(self, case: Case, *, equalized: bool) -> Iterator[str]:
        """Yield the files of a case's network: of a model as it was read or cut, then as it is compiled.

        Of the equalized network, whose weights follow from sums in floating point, or of the others.
        """
        runs = [run for run in self.configuration.runs_of(case) if run.variant.table.is_equalized == equalized]
        if equalized and runs:
            yield from (*equalized_files(self.configuration, case.model), f"network/{EQUALIZED}/equalization.tsv")
        if not equalized and self.configuration.is_onnx(case.model):
            yield from (f"network/{name}" for name in IMPORTED)
        if not equalized and case.model in self.configuration.cut_models:
            yield from (f"network/{name}" for name in CUT)
        for run in runs:
            yield from prepared_files(self.configuration, case.model, run.variant)
            if self.configuration.in_caffe(case.model, run.variant):
                yield f"network/{run.variant.table.network}/{PREPARED}"

    @property
    def _numbers(self) -> list[str]:
        """Return what commands say of fp32 and of every run."""
        cases = [case for case in self.configuration.measured if case.metric.command]
        return [f"{self.case_folder(case)}/reference/numbers.npz" for case in cases] + self._of(cases, "numbers.npz")

    def _of_runs(self, *names: str) -> list[str]:
        """Return the files called `names` of every run."""
        return self._of(self.configuration.cases, *names)

    def _of_classified(self, *names: str) -> list[str]:
        """Return the same of those that are measured by labels."""
        return self._of(self.configuration.classified, *names)

    def _of(self, cases: Sequence[Case], *names: str) -> list[str]:
        """Return the files called `names` of every run of `cases`, in the order of all runs."""
        wanted = set(cases)
        runs = [run for run in self.configuration.runs if run.case in wanted]
        return [f"{folder}/{name}" for folder in map(self.run_folder, runs) for name in names]

    def _of_case(self, case: Case, names: Iterable[str]) -> Iterator[str]:
        """Yield the paths of a case's files, each once."""
        return (f"{self.case_folder(case)}/{name}" for name in dict.fromkeys(names))

    def _engine_files(self, suffix: str) -> list[str]:
        """Return the files of TensorRT's engines that have this suffix."""
        cases, engines = self.configuration.classified, self.configuration.engines
        return [f"{self.case_folder(case)}/tensorrt/{engine}.{suffix}" for case in cases for engine in engines]
