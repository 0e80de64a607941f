# Names, lookups and input functions for the rules; no rules here.
import gc
import re
import shlex
from dataclasses import asdict
from pathlib import Path

from snakemake.settings.types import DeploymentMethod
from snakemake.shell import shell

from nvdla_quant.jobs import provenance
from nvdla_quant.config import Case, load_configuration
from nvdla_quant.errors import ConfigError
from nvdla_quant.jobs.programs import bind_into_containers

CONFIGURATION = load_configuration(config)
SETTINGS = CONFIGURATION.settings
FIGURES = ("accuracy", "images", "layers", "scales", "classes")
CHECKOUT = Path(workflow.current_basedir).parent

# Planning makes so many objects that Python's collector goes over all modules again and again; those stay anyway.
gc.freeze()

if ":" in str(CHECKOUT):
    raise ConfigError(
        f"{CHECKOUT}: jobs find the package by PYTHONPATH, which cannot name a folder with a colon; move the checkout"
    )

# The one place where jobs learn where the package is: before each command, within its environment or container, which
# need not have it.
shell.prefix(
    "set -euo pipefail; export PYTHONPATH=" + shlex.quote(str(CHECKOUT)).replace("{", "{{").replace("}", "}}") + "; "
)

# Containers see the working directory by themselves, but not the checkout, nor files elsewhere.
if DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method:
    bind_into_containers(
        [
            CHECKOUT,
            Path(workflow.pathvars.apply("<results>")),
            Path("downloads"),
            *(Path(model[key]) for model in SETTINGS["models"].values() for key in ("prototxt", "caffemodel")),
        ]
    )


def alternatives(names):
    """Regular expression that matches exactly `names`; nothing where there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


# Snakemake writes constraints into all its patterns and goes over those for each file of a plan, which hundreds of names
# make slow. The lookup of its record refuses a name that is not in the configuration.
ANY_NAME = "[a-z0-9-]+"


def those(chosen, names):
    """`alternatives` for those of `names` that are `chosen`; where all are, any name, however many there are."""
    return ANY_NAME if set(chosen) == set(names) else alternatives(chosen)


TENSORRT_CALIBRATORS = [name for name, c in SETTINGS["calibrators"].items() if c["method"].startswith("tensorrt-")]


def engines():
    """What TensorRT runs: everything, if a variant has a calibrator of its own."""
    used = dict.fromkeys(v.calibrator for v in CONFIGURATION.variants.values() if v.calibrator in TENSORRT_CALIBRATORS)
    return ["fp32", "fp16", *(f"int8-{name}" for name in used)] if used else []


wildcard_constraints:
    engine=alternatives(engines()),
    model=alternatives(SETTINGS["models"]),
    dataset=alternatives(SETTINGS["datasets"]),
    calibrator=ANY_NAME,
    variant=ANY_NAME,
    target=alternatives(SETTINGS["targets"]),
    shard=alternatives(CONFIGURATION.shards),
    digest="[0-9a-f]{64}|unknown-[0-9a-f]{16}",
    file="[^/]+",
    path="(?s:.+)",
    table=alternatives(CONFIGURATION.tables),
    network=alternatives(CONFIGURATION.networks),


def code_of(rule_name):
    """Digest of a script and of every module of the package that it imports: editing one reruns its rule."""
    return provenance.source_digest(CHECKOUT / "scripts" / f"{rule_name}.py", package=CHECKOUT / "nvdla_quant")


def digest_of(module):
    """The same of a program of the package."""
    return provenance.source_digest(module, package=CHECKOUT / "nvdla_quant")


def variants_with(**backends):
    """Regular expression of the variants with these backends: the rules for one never match those of another."""
    chosen = (v for v in CONFIGURATION.variants.values() if all(getattr(v, key) == backends[key] for key in backends))
    return those([variant.name for variant in chosen], CONFIGURATION.variants)


def model_of(wildcards):
    return SETTINGS["models"][wildcards.model]


def prototxt_of(wildcards):
    return model_of(wildcards)["prototxt"]


def caffemodel_of(wildcards):
    return model_of(wildcards)["caffemodel"]


def case_record_of(wildcards):
    """The case as the configuration has it, with its overrides."""
    return next(c for c in CONFIGURATION.cases if c == Case(wildcards.model, wildcards.dataset))


def preprocessing_of(wildcards):
    return CONFIGURATION.preprocessing(case_record_of(wildcards))


def dataset_of(wildcards):
    return CONFIGURATION.dataset(case_record_of(wildcards))


def known(kind, name, names):
    """`name`, if it is one of `names`; in a path that Snakemake was asked for, any may stand."""
    if name not in names:
        raise ConfigError(f"config: there is no {kind} {name!r}, but {', '.join(names) or 'none at all'}")
    return name


def calibrator_of(wildcards):
    name = known("calibrator", wildcards.calibrator, SETTINGS["calibrators"])
    return CONFIGURATION.calibrator(case_record_of(wildcards), name)


def method_of(wildcards):
    """What a calibrator does with its images, whichever they are."""
    return {key: value for key, value in calibrator_of(wildcards).items() if key not in ("images", "seed")}


def tensorrt_options_of(wildcards):
    """Options of TensorRT's program for a calibrator."""
    return tensorrt_options(calibrator_of(wildcards))


def tensorrt_options(calibrator):
    options = [f"--method={calibrator['method']}", f"--batch-size={calibrator['batch_size']}"]
    if "percentile" in calibrator:
        options.append(f"--quantile={calibrator['percentile'] / 100!r}")
    return options


def engine_calibrator(wildcards):
    """Name of the calibrator of an int8 engine; None for the others."""
    precision, _, calibrator = wildcards.engine.partition("-")
    return calibrator or None


def engine_cache_of(wildcards):
    calibrator = engine_calibrator(wildcards)
    return [] if calibrator is None else f"{case_of(wildcards)}/calibration/{calibrator}/calibration.cache"


def engine_options_of(wildcards):
    calibrator = engine_calibrator(wildcards)
    if calibrator is None:
        return [f"--precision={wildcards.engine}", "--batch-size=64"]
    cache = workflow.pathvars.apply(engine_cache_of(wildcards))
    return [
        "--precision=int8",
        f"--cache={cache}",
        *tensorrt_options(CONFIGURATION.calibrator(case_record_of(wildcards), calibrator)),
    ]


def engine_subject_of(wildcards):
    """What the row of a TensorRT engine says before any number; it has no target, as fp32 has none."""
    calibrator = engine_calibrator(wildcards)
    return {
        "model": wildcards.model,
        "dataset": wildcards.dataset,
        "target": None,
        "variant": f"tensorrt-{wildcards.engine}",
        "precision": wildcards.engine if calibrator is None else "int8",
        "mode": None,
        "calibrator": calibrator,
        "preparation": None,
        "feeding": None,
        "unified_scales": None,
        "calibrate_backend": "tensorrt" if calibrator else None,
        "compile_backend": "tensorrt",
        "run_backend": "tensorrt",
    }


def variant_of(wildcards):
    return CONFIGURATION.variants[known("variant", wildcards.variant, CONFIGURATION.variants)]


def files_of(source):
    """Files that a data set's `source` names."""
    return [source[key] for key in ("images", "labels", "path", "label_names") if key in source] + source.get(
        "files", []
    )


def test_files_of(wildcards):
    return files_of(dataset_of(wildcards)["source"])


def calibration_files_of(wildcards):
    dataset = dataset_of(wildcards)
    return files_of(dataset.get("calibration_source", dataset["source"]))


def source_of(wildcards, output):
    """Where a file that is downloaded or taken out of an archive comes from."""
    return asdict(CONFIGURATION.sources[output[0]])


def member_archive_of(wildcards):
    return CONFIGURATION.sources[f"downloads/{wildcards.digest}/member/{wildcards.path}"].path


def folder_archive_of(wildcards):
    return CONFIGURATION.sources[f"downloads/{wildcards.digest}/folder/{wildcards.path}"].path


def case_of(wildcards):
    return f"<results>/{wildcards.model}/{wildcards.dataset}"


def prepared_prototxt_of(wildcards):
    return f"{case_of(wildcards)}/network/{variant_of(wildcards).table.network}/deploy.prototxt"


def prepared_caffemodel_of(wildcards):
    return f"{case_of(wildcards)}/network/{variant_of(wildcards).table.network}/weights.caffemodel"


def preparation_of(wildcards):
    """How the form of the network in `wildcards` is made."""
    return preparation_for(wildcards, CONFIGURATION.networks[wildcards.network])


def preparation_for(wildcards, table):
    """How a form of the network is made; the stock runtime feeds raw pixels, so their preprocessing goes in too."""
    preprocessing = preprocessing_of(wildcards)
    pixels = None if table.feeding == "quantized" else (preprocessing["mean"], preprocessing["scale"])
    return {"preparation": table.preparation, "pixels": pixels}


def table_of(wildcards):
    """Fixed table of a variant; an fp16 variant has none."""
    variant = variant_of(wildcards)
    if variant.calibrator is None:
        return []
    return f"{case_of(wildcards)}/calibration/{variant.calibrator}/{variant.table.name}/table.fixed.json"


def table_options_of(wildcards):
    table = CONFIGURATION.tables[wildcards.table]
    return {"feeding": table.feeding, "unify_scales": table.unify_scales}


def table_prototxt_of(wildcards):
    return f"{case_of(wildcards)}/network/{CONFIGURATION.tables[wildcards.table].network}/deploy.prototxt"


def compile_options_of(wildcards):
    variant = variant_of(wildcards)
    return {"precision": variant.precision, "mode": variant.mode}


def nvdla_compiler_variants_of(wildcards):
    """Variants that NVIDIA's compiler makes for a target, with what decides whether it makes them right."""
    return {
        variant.name: {
            "precision": variant.precision,
            "mode": variant.mode,
            **preparation_for(wildcards, variant.table),
        }
        for variant in CONFIGURATION.variants.values()
        if variant.compiler == "nvdla_compiler" and wildcards.target in variant.targets
    }


def backend(name):
    """Section of a real tool; empty where the configuration has none."""
    return SETTINGS["backends"].get(name, {})


def feeding_of(wildcards):
    variant = variant_of(wildcards)
    return {"precision": variant.precision, "feeding": variant.table.feeding}


def is_quantized_here(wildcards):
    """Whether the device input is quantized with the table's scale of the input."""
    variant = variant_of(wildcards)
    return variant.precision == "int8" and variant.table.feeding == "quantized"


def is_fed_raw_pixels(wildcards):
    """Whether the prepared network reads pixels as they are, with the preprocessing folded in."""
    return variant_of(wildcards).table.feeding != "quantized"


def verified_subject_of(wildcards):
    """Which row of the summary a verdict belongs to."""
    return {key: subject_of(wildcards)[key] for key in ("model", "dataset", "target", "variant")}


def calibrate_backend(calibrator):
    if calibrator is None:
        return None
    return "tensorrt" if calibrator in TENSORRT_CALIBRATORS else "cpu"


def subject_of(wildcards):
    """What a row of the summary says about a variant before any number."""
    variant = variant_of(wildcards)
    return {
        "model": wildcards.model,
        "dataset": wildcards.dataset,
        "target": wildcards.target,
        "variant": variant.name,
        "precision": variant.precision,
        "mode": variant.mode,
        "calibrator": variant.calibrator,
        "preparation": variant.table.preparation,
        "feeding": variant.table.feeding if variant.calibrator else None,
        "unified_scales": variant.table.unify_scales if variant.calibrator else None,
        "calibrate_backend": calibrate_backend(variant.calibrator),
        "compile_backend": variant.compiler,
        "run_backend": variant.runtime,
    }


def reference_subject_of(wildcards):
    """What the fp32 row of a case says before any number."""
    return {"model": wildcards.model, "dataset": wildcards.dataset}


def pair_with_fp32_of(wildcards):
    """What a comparison with fp32 says before any number."""
    names = {key: getattr(wildcards, key) for key in ("model", "dataset", "target", "variant")}
    return {**names, "baseline": "fp32", "kind": "fp32"}


def runs_of_case(wildcards):
    """Targets and variants of a case."""
    return [(run.target, run.variant.name) for run in CONFIGURATION.runs_of(case_record_of(wildcards))]


def dumps_of_case(wildcards):
    """Raw dumps of every run of a case, the shards of a run together, in the order of `runs_of_case`."""
    folders = [f"{case_of(wildcards)}/{target}/{variant}" for target, variant in runs_of_case(wildcards)]
    return [f"{folder}/dumps/{shard}.npz" for folder in folders for shard in CONFIGURATION.shards]


def comparisons_of_case(wildcards):
    return [f"{case_of(wildcards)}/{'/'.join(run)}/comparison.json" for run in runs_of_case(wildcards)]


def groups_of_case(wildcards):
    case = (wildcards.model, wildcards.dataset)
    return [group for group in group_records() if (group["model"], group["dataset"]) == case]


def mode_pairs_of_case(wildcards):
    """Variants that differ in the mode alone: per-filter beside per-kernel."""
    pairs = CONFIGURATION.mode_pairs(case_record_of(wildcards))
    return [
        {"target": kernel.target, "variant": filter_.variant.name, "baseline": kernel.variant.name}
        for kernel, filter_ in pairs
    ]


def part_of(wildcards):
    """Which part of the test images a shard is."""
    return {"shard": CONFIGURATION.shards.index(wildcards.shard), "shards": len(CONFIGURATION.shards)}


def accuracy_files():
    """Accuracy of fp32 for each case, of TensorRT, then of every variant, in the order of the report."""
    references = [f"<results>/{case.model}/{case.dataset}/reference/accuracy.json" for case in CONFIGURATION.cases]
    return references + engine_files("json") + [f"{folder}/accuracy.json" for folder in run_folders()]


def engine_files(suffix):
    return [f"<results>/{c.model}/{c.dataset}/tensorrt/{e}.{suffix}" for c in CONFIGURATION.cases for e in engines()]


def comparison_files():
    """Comparisons of every variant with fp32, then those within each case."""
    cases = [f"<results>/{case.model}/{case.dataset}/comparisons.json" for case in CONFIGURATION.cases]
    return [f"{folder}/comparison.json" for folder in run_folders()] + cases


def group_records():
    """Variants of the sweep, those together that differ in the calibrator's seed alone."""
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
        for group in CONFIGURATION.groups
    ]


def run_folders():
    return [f"<results>/{r.case.model}/{r.case.dataset}/{r.target}/{r.variant.name}" for r in CONFIGURATION.runs]


def verdict_files():
    """Verdict on every loadable, unless the configuration skips them."""
    return [f"{folder}/verdict.json" for folder in run_folders()] if SETTINGS["verify"]["images"] else []


def layer_files():
    """Layers of every loadable, in the order of `verdict_files`."""
    return [f"{folder}/layers.tsv" for folder in run_folders()] if SETTINGS["verify"]["images"] else []


def calibrator_records():
    """Calibrators that each case uses, under their names without the seed where the sweep repeats it."""
    found = {}
    for group in CONFIGURATION.groups:
        for run in group.runs:
            if run.variant.calibrator is not None:
                key = (run.case.model, run.case.dataset, run.variant.calibrator)
                found.setdefault(key, {"model": key[0], "dataset": key[1], "name": group.calibrator})
    return list(found.values())


def raw_table_files():
    """Raw tables of the calibrators, in the order of `calibrator_records`."""
    found = {
        f"<results>/{run.case.model}/{run.case.dataset}/calibration/{run.variant.calibrator}/table.raw.json": None
        for group in CONFIGURATION.groups
        for run in group.runs
        if run.variant.calibrator is not None
    }
    return list(found)


def benchmark_patterns(wildcards):
    """Benchmark files by rule, with * for wildcards."""
    return {rule.name: re.sub(r"\{[^}]*\}", "*", str(rule.benchmark)) for rule in workflow.rules if rule.benchmark}


def command_to_repeat():
    """The command that makes these results, without what does not change them."""
    paths = [Path(path).absolute() for path in workflow.configfiles]
    here = [path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path for path in paths]
    shown = [path for path in here if path != Path("config.yaml")]
    given = [f"{key}={value}" for key, value in workflow.config_settings.config.items()]
    command = [
        "snakemake",
        *(["--configfile", *map(str, shown)] if shown else []),
        *(["--config", *given] if given else []),
    ]
    return shlex.join(command)


def dumped_files():
    """Folders of `nvdla_runtime`-style dumps, where the configuration asks for them."""
    if SETTINGS["raw_dumps"]["format"] == "none":
        return []
    return [f"{folder}/dumps/{shard}.dimg" for folder in run_folders() for shard in CONFIGURATION.shards]


def exact_artefacts():
    """Artefacts that are the same bytes on every machine."""
    paths = []
    for case in CONFIGURATION.cases:
        runs = CONFIGURATION.runs_of(case)
        names = [f"images/test-{shard}.npz" for shard in CONFIGURATION.shards]
        names += [f"images/calibration-{run.variant.calibrator}.npz" for run in runs if run.variant.calibrator]
        names += [f"{run.target}/support.json" for run in runs]
        folders = [f"network/{run.variant.table.network}" for run in runs]
        names += [f"{folder}/{name}" for folder in folders for name in ("deploy.prototxt", "weights.caffemodel")]
        paths += [f"<results>/{case.model}/{case.dataset}/{name}" for name in dict.fromkeys(names)]
    return paths


def processor_dependent_artefacts():
    """Artefacts that follow from fp32 sums, whose last bits may differ on another class of processor."""
    paths = [f"<results>/{name}" for name in ("summary.tsv", "summary.tex", "summary.md", "pairs.tsv", "seeds.tsv")]
    paths += [f"<results>/report/{name}.{suffix}" for name in FIGURES for suffix in ("svg", "pdf")]
    for case in CONFIGURATION.cases:
        names = [f"reference/{shard}.npz" for shard in CONFIGURATION.shards]
        for run in CONFIGURATION.runs_of(case):
            if run.variant.calibrator is not None:
                folder = f"calibration/{run.variant.calibrator}"
                names += [f"{folder}/calibration.cache", f"{folder}/table.raw.json"]
                names += [f"{folder}/{run.variant.table.name}/{name}" for name in ("table.fixed.json", "changes.tsv")]
        paths += [f"<results>/{case.model}/{case.dataset}/{name}" for name in dict.fromkeys(names)]
    for folder in run_folders():
        paths += [f"{folder}/loadable.nvdla", f"{folder}/compile.json"]
        paths += [f"{folder}/dumps/{shard}.npz" for shard in CONFIGURATION.shards]
        if SETTINGS["verify"]["images"]:
            paths += [f"{folder}/layers.tsv", f"{folder}/verdict.json"]
    return paths + engine_files("npz") + accuracy_files() + comparison_files()


def input_files():
    """Files of the user that the sweep reads."""
    models = [SETTINGS["models"][case.model] for case in CONFIGURATION.cases]
    datasets = [SETTINGS["datasets"][case.dataset] for case in CONFIGURATION.cases]
    sources = [dataset[key] for dataset in datasets for key in ("source", "calibration_source") if key in dataset]
    paths = [model[key] for model in models for key in ("prototxt", "caffemodel")]
    return list(dict.fromkeys(paths + [path for source in sources for path in files_of(source)]))


def final_outputs(wildcards):
    """What nothing else is made from, and what was lost: it is made again, whatever was made from it is still there."""
    final = ["<results>/manifest.json", "<results>/report/report.html", *dumped_files()]
    if not Path(workflow.pathvars.apply(final[0])).is_file():
        return final  # The manifest asks for every artefact; to ask twice would slow the plan of a large sweep.
    artefacts = map(workflow.pathvars.apply, exact_artefacts() + processor_dependent_artefacts())
    return [*final, *(path for path in artefacts if not Path(path).exists())]
