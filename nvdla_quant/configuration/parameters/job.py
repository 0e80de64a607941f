"""What the job of a rule is given, by the values of the wildcards in its paths: files and parameters.

Every public method can stand as an input or parameter function in a rule. Snakemake takes one path for one file and a
list for several or none, so what a job may lack is a path or an empty list.
"""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from nvdla_quant.configuration.artefacts import CUT, IMPORTED, equalized_files, form_files, prepared_files
from nvdla_quant.configuration.parameters.fidelity import Fidelity
from nvdla_quant.configuration.parameters.lookup import Record
from nvdla_quant.configuration.parameters.names import Wildcards, known
from nvdla_quant.configuration.parameters.rows import Rows, engine_calibrator
from nvdla_quant.configuration.records import Table
from nvdla_quant.configuration.sources import files_of, is_onnx, located, model_files
from nvdla_quant.configuration.sweep import calibration_folder


class Job(Rows, Fidelity):
    """Lookups for the rules, in the order of their stages."""

    # Models and data sets.

    def model_files(self, wildcards: Wildcards) -> list[str]:
        """Return the files of the model."""
        return model_files(self._model(wildcards))

    def input_shape(self, wildcards: Wildcards) -> list[int] | None:
        """Return the shape of an ONNX model's input, where the configuration has it."""
        return self._model(wildcards).get("input_shape")

    def cut_at(self, wildcards: Wildcards) -> list[str]:
        """Return the tensors that the network ends at; none where it ends as its file does."""
        ends: list[str] = self._model(wildcards).get("cut_at", [])
        return ends

    def network(self, wildcards: Wildcards) -> list[str]:
        """Return the files of the network as it was trained: Caffe's, cut or whole, or what ONNX was read to."""
        model, folder = self._model(wildcards), f"{self._folder(wildcards)}/network"
        if is_onnx(model):
            return [f"{folder}/{IMPORTED[0]}"]
        return [f"{folder}/{name}" for name in CUT] if self.cut_at(wildcards) else model_files(model)

    def structure(self, wildcards: Wildcards) -> list[str]:
        """Return the file that has the structure of the network as it was trained: new weights change none in Caffe."""
        return self.network(wildcards)[:1]

    def size(self, wildcards: Wildcards) -> str:
        """Return the file that tells how large the tensors are, for a plan: structure, or what was noted in reading."""
        is_read = is_onnx(self._model(wildcards))
        return f"{self._folder(wildcards)}/network/{IMPORTED[3]}" if is_read else self.network(wildcards)[0]

    def preprocessing(self, wildcards: Wildcards) -> Record:
        """Return how the images of the case are prepared."""
        return self.configuration.preprocessing(self._case(wildcards))

    def test_files(self, wildcards: Wildcards) -> list[str]:
        """Return the files that test images come from."""
        return files_of(self.dataset(wildcards)["source"])

    def test_dataset(self, wildcards: Wildcards, input: Any) -> Record:
        """Return the data set, with what the case sets otherwise, and its files where the job finds them."""
        dataset = self.dataset(wildcards)
        return {**dataset, "source": located(dataset["source"], input.files)}

    def calibration_files(self, wildcards: Wildcards) -> list[str]:
        """Return the files that calibration images come from."""
        dataset = self.dataset(wildcards)
        return files_of(dataset[_calibration_key(dataset)])

    def calibration_dataset(self, wildcards: Wildcards, input: Any) -> Record:
        """Return the same as `test_dataset`, of the calibration images."""
        dataset = self.dataset(wildcards)
        key = _calibration_key(dataset)
        return {**dataset, key: located(dataset[key], input.files)}

    def part(self, wildcards: Wildcards) -> Record:
        """Return which part of the test images a shard is."""
        shards = self.configuration.shards
        return {"shard": shards.index(wildcards.shard), "shards": len(shards)}

    def source(self, wildcards: Wildcards, output: Any) -> Record:
        """Return where a file that is downloaded or taken out of an archive comes from."""
        return asdict(self.configuration.sources[output[0]])

    def sha256(self, wildcards: Wildcards) -> str:
        """Return what a downloaded file's digest must be; its path begins with it."""
        return str(wildcards.digest)

    def archive_of_member(self, wildcards: Wildcards) -> str:
        """Return the archive that a file is taken out of."""
        return self.configuration.sources[f"downloads/{wildcards.digest}/member/{wildcards.path}"].path

    def archive_of_folder(self, wildcards: Wildcards) -> str:
        """Return the archive that a folder is taken out of."""
        return self.configuration.sources[f"downloads/{wildcards.digest}/folder/{wildcards.path}"].path

    # The network as it is compiled.

    def equalized(self, wildcards: Wildcards) -> list[str]:
        """Return the files of the equalized network."""
        return [
            f"{self._folder(wildcards)}/{name}" for name in equalized_files(self.configuration, self._name(wildcards))
        ]

    def equalization_images(self, wildcards: Wildcards) -> list[str]:
        """Return the images of the calibrators that see the equalized network; on them its scores must not change."""
        names = self.configuration.equalized_calibrators(self._case(wildcards))
        return [f"{self._folder(wildcards)}/images/calibration-{name}.npz" for name in names]

    def unprepared(self, wildcards: Wildcards) -> list[str]:
        """Return the files of the network that a form is made from: as it was trained, or equalized."""
        table = self.configuration.networks[wildcards.network]
        return self.equalized(wildcards) if table.is_equalized else self.network(wildcards)

    def preparation(self, wildcards: Wildcards) -> Record:
        """Return how the form of the network is made; the equalized network is folded already."""
        table = self.configuration.networks[wildcards.network]
        return self._preparation(wildcards, table, "as-is" if table.is_equalized else table.preparation)

    def nvdla_compiler_variants(self, wildcards: Wildcards) -> Record:
        """Return the variants that NVIDIA's compiler makes for a target, with what decides whether they come right."""
        return {
            variant.name: {
                "precision": variant.precision,
                "mode": variant.mode,
                "is_converted": self.configuration.in_caffe(self._name(wildcards), variant),
                # Equalization leaves the layers of the folded network, and what its support depends on.
                **self._preparation(
                    wildcards, variant.table, "fold" if variant.table.is_equalized else variant.table.preparation
                ),
            }
            for variant in self.configuration.variants.values()
            if variant.compiler == "nvdla_compiler" and wildcards.target in variant.targets
        }

    # Calibration.

    def calibrator(self, wildcards: Wildcards) -> Record:
        """Return the calibrator that a path names, or that of its variant, as the case has it."""
        own = wildcards.calibrator if hasattr(wildcards, "calibrator") else str(self._variant(wildcards).calibrator)
        name = known("calibrator", own, self.configuration.settings["calibrators"])
        return self.configuration.calibrator(self._case(wildcards), name)

    def method(self, wildcards: Wildcards) -> Record:
        """Return what a calibrator does with its images, whichever they are."""
        return {key: value for key, value in self.calibrator(wildcards).items() if key not in ("images", "seed")}

    def caffe_files(self, wildcards: Wildcards) -> list[str]:
        """Return Caffe's files, which some versions of TensorRT read; an ONNX model has none."""
        return [] if is_onnx(self._model(wildcards)) else self.network(wildcards)

    def equalized_caffe_files(self, wildcards: Wildcards) -> list[str]:
        """Return the same of the equalized network."""
        return [] if is_onnx(self._model(wildcards)) else self.equalized(wildcards)

    def tensorrt_options(self, wildcards: Wildcards, input: Any) -> list[str]:
        """Return the options of TensorRT's program for a calibrator."""
        return [*_caffe_options(input.network), *_tensorrt_options(self.calibrator(wildcards))]

    def engine_cache(self, wildcards: Wildcards) -> str | list[str]:
        """Return the calibration cache of an int8 engine; the others have none."""
        calibrator = engine_calibrator(wildcards)
        return [] if calibrator is None else f"{self._folder(wildcards)}/calibration/{calibrator}/calibration.cache"

    def engine_options(self, wildcards: Wildcards, input: Any) -> list[str]:
        """Return the options of TensorRT's program for an engine."""
        calibrator = engine_calibrator(wildcards)
        files = _caffe_options(input.network)
        if calibrator is None:
            return [*files, f"--precision={wildcards.engine}", "--batch-size=64"]
        record = self.configuration.calibrator(self._case(wildcards), calibrator)
        return [*files, "--precision=int8", f"--cache={input.cache}", *_tensorrt_options(record)]

    # Tables.

    def table_options(self, wildcards: Wildcards) -> Record:
        """Return how a cache becomes a fixed table."""
        table = self.configuration.tables[wildcards.table]
        return {"feeding": table.feeding, "unify_scales": table.unify_scales}

    def cache(self, wildcards: Wildcards) -> str:
        """Return the calibration cache that a fixed table is made from."""
        table = self.configuration.tables[wildcards.table]
        name = known("calibrator", wildcards.calibrator, self.configuration.settings["calibrators"])
        return f"{self._folder(wildcards)}/{calibration_folder(name, table.preparation)}/calibration.cache"

    def table_structure(self, wildcards: Wildcards) -> list[str]:
        """Return the file that has the structure of the network that the cache of a fixed table is of."""
        table = self.configuration.tables[wildcards.table]
        return self.equalized(wildcards)[:1] if table.is_equalized else self.structure(wildcards)

    def table_network(self, wildcards: Wildcards) -> list[str]:
        """Return the files of the network that a fixed table belongs to, those that decide its scales."""
        table = self.configuration.tables[wildcards.table]
        files = form_files(self.configuration, self._name(wildcards), table)
        return [f"{self._folder(wildcards)}/{name}" for name in (files if table.caffe else files[:1])]

    # Targets.

    def target(self, wildcards: Wildcards) -> str | Record:
        """Return the target: its name, or the record of one of the user's own."""
        spec = self.configuration.specs.get(wildcards.target)
        return str(wildcards.target) if spec is None else {"name": str(wildcards.target), "spec": spec}

    def specification(self, wildcards: Wildcards) -> str | list[str]:
        """Return the specification of a target of the user's own; a shipped one has none."""
        return self.configuration.specs.get(wildcards.target, [])

    # Variants: compiling, running, judging.

    def prepared(self, wildcards: Wildcards) -> list[str]:
        """Return the files of the network that a variant compiles."""
        files = prepared_files(self.configuration, self._name(wildcards), self._variant(wildcards))
        return [f"{self._folder(wildcards)}/{name}" for name in files]

    def prepared_structure(self, wildcards: Wildcards) -> list[str]:
        """Return the file that has the structure of the network that a variant compiles."""
        return self.prepared(wildcards)[:1]

    def table(self, wildcards: Wildcards) -> str | list[str]:
        """Return the table that a variant is compiled with, fixed or searched; an fp16 variant has none."""
        if self._variant(wildcards).is_searched:
            return f"{self._run_folder(wildcards)}/table.searched.json"
        return self.fixed_table(wildcards)

    def fixed_table(self, wildcards: Wildcards) -> str | list[str]:
        """Return the fixed table of a variant; an fp16 variant has none."""
        variant = self._variant(wildcards)
        table = self.configuration.table(self._name(wildcards), variant)
        folder = f"{self._folder(wildcards)}/calibration/{variant.calibrator}/{table.name}"
        return [] if variant.calibrator is None else f"{folder}/table.fixed.json"

    def searched_weights(self, wildcards: Wildcards) -> str | list[str]:
        """Return the weights whose scales a search has chosen; where none was made there are none."""
        return f"{self._run_folder(wildcards)}/weights.searched.npz" if self._variant(wildcards).is_searched else []

    def weight_steps(self, wildcards: Wildcards) -> str | list[str]:
        """Return the weights that take the place of the network's: refined, or searched; else there are none."""
        is_refined = self._variant(wildcards).is_refined
        return f"{self._run_folder(wildcards)}/weights.steps.npz" if is_refined else self.searched_weights(wildcards)

    def calibration_images(self, wildcards: Wildcards) -> str | list[str]:
        """Return the images of a variant's calibrator; an fp16 variant has none."""
        calibrator = self._variant(wildcards).calibrator
        return [] if calibrator is None else f"{self._folder(wildcards)}/images/calibration-{calibrator}.npz"

    def refinement_options(self, wildcards: Wildcards) -> Record:
        """Return how the weights and biases of a variant are chosen."""
        variant = self._variant(wildcards)
        return {key: getattr(variant, key) for key in ("mode", "correction", "rounding")}

    def search_options(self, wildcards: Wildcards) -> Record:
        """Return how the scales of a variant are searched."""
        settings, variant = self.configuration.settings, self._variant(wildcards)
        how = {"mode": variant.mode, "unify_scales": variant.table.unify_scales}
        return {**how, "objective": settings["objective"], "trials": settings["search_trials"]}

    def compile_options(self, wildcards: Wildcards) -> Record:
        """Return what a compiler is told of a variant."""
        variant = self._variant(wildcards)
        return {"precision": variant.precision, "mode": variant.mode}

    def builtin_options(self, wildcards: Wildcards) -> Record:
        """Return what this package's compiler is told of a variant."""
        return {**self.compile_options(wildcards), "objective": self.configuration.settings["objective"]}

    def is_compiled_here(self, wildcards: Wildcards) -> bool:
        """Return whether this package compiles the variant, and so says what its operations stand for."""
        return self._variant(wildcards).compiler == "builtin"

    def feeding(self, wildcards: Wildcards) -> Record:
        """Return how the device is fed."""
        variant = self._variant(wildcards)
        return {"precision": variant.precision, "feeding": variant.table.feeding}

    def is_quantized_here(self, wildcards: Wildcards) -> bool:
        """Return whether the device input is quantized with the table's scale of the input."""
        variant = self._variant(wildcards)
        return variant.precision == "int8" and variant.table.feeding == "quantized"

    def is_fed_raw_pixels(self, wildcards: Wildcards) -> bool:
        """Return whether the prepared network reads pixels as they are, with the preprocessing folded in."""
        return self._variant(wildcards).table.feeding != "quantized"

    # A case: its variants beside each other.

    def runs(self, wildcards: Wildcards) -> list[tuple[str, str]]:
        """Return targets and variants of a case."""
        return [(run.target, run.variant.name) for run in self.configuration.runs_of(self._case(wildcards))]

    def dumps(self, wildcards: Wildcards) -> list[str]:
        """Return the raw dumps of every run of a case, the shards of a run together, in the order of `runs`."""
        folders = [f"{self._folder(wildcards)}/{target}/{variant}" for target, variant in self.runs(wildcards)]
        return [f"{folder}/dumps/{shard}.npz" for folder in folders for shard in self.configuration.shards]

    def comparisons(self, wildcards: Wildcards) -> list[str]:
        """Return the comparisons with fp32 of every run of a case."""
        folder = self._folder(wildcards)
        return [f"{folder}/{target}/{variant}/comparison.json" for target, variant in self.runs(wildcards)]

    def base(self, wildcards: Wildcards, output: Any) -> str:
        """Return what stands before the names of a sweep's files: nothing, or the folder of a storage's copies."""
        return str(output.manifest).removesuffix(self.artefacts.manifest)

    def groups(self, wildcards: Wildcards) -> list[Record]:
        """Return those of a case's variants together that differ in the calibrator's seed alone."""
        case = (wildcards.model, wildcards.dataset)
        return [group for group in self.artefacts.groups if (group["model"], group["dataset"]) == case]

    def pairs(self, wildcards: Wildcards) -> list[Record]:
        """Return variants that differ in one thing: per-filter beside per-kernel, and methods beside none."""
        case = self._case(wildcards)
        found = {"mode": self.configuration.mode_pairs(case), "method": self.configuration.method_pairs(case)}
        return [
            {"target": ours.target, "variant": ours.variant.name, "baseline": baseline.variant.name, "kind": kind}
            for kind, pairs in found.items()
            for baseline, ours in pairs
        ]

    def _preparation(self, wildcards: Wildcards, table: Table, preparation: str) -> Record:
        """Return how a form is made; the stock runtime feeds raw pixels, so their preprocessing goes in too."""
        preprocessing = self.preprocessing(wildcards)
        pixels = None if table.feeding == "quantized" else (preprocessing["mean"], preprocessing["scale"])
        return {"preparation": preparation, "pixels": pixels}


def _calibration_key(dataset: Record) -> str:
    return "calibration_source" if "calibration_source" in dataset else "source"


def _caffe_options(files: Iterable[str]) -> list[str]:
    """Return the options that name Caffe's files, where there are any."""
    return [f"--{option}={path}" for option, path in zip(("prototxt", "caffemodel"), files, strict=False)]


def _tensorrt_options(calibrator: Record) -> list[str]:
    options = [f"--method={calibrator['method']}", f"--batch-size={calibrator['batch_size']}"]
    return options + ([f"--quantile={calibrator['percentile'] / 100!r}"] if "percentile" in calibrator else [])
