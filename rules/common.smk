# Names, lookups and input functions for the rules; no rules here.
import re
import shutil
import sys
from pathlib import Path

from nvdla_quant import provenance
from nvdla_quant.config import load_configuration

CONFIGURATION = load_configuration(config)
SETTINGS = CONFIGURATION.settings
CHECKOUT = Path(workflow.current_basedir).parent


def alternatives(names):
    """Regular expression that matches exactly `names`."""
    return "|".join(map(re.escape, names))


wildcard_constraints:
    model=alternatives(SETTINGS["models"]),
    dataset=alternatives(SETTINGS["datasets"]),
    calibrator=alternatives(SETTINGS["calibrators"]),
    variant=alternatives(CONFIGURATION.variants),
    target=alternatives(SETTINGS["targets"]),
    shard=alternatives(CONFIGURATION.shards),
    table=alternatives(CONFIGURATION.tables) or "none",
    network=alternatives(CONFIGURATION.networks),


def code_of(rule_name):
    """Digest of a script and of every module of the package that it imports: editing one reruns its rule."""
    return provenance.source_digest(CHECKOUT / "scripts" / f"{rule_name}.py", package=CHECKOUT / "nvdla_quant")


def model_of(wildcards):
    return SETTINGS["models"][wildcards.model]


def prototxt_of(wildcards):
    return model_of(wildcards)["prototxt"]


def caffemodel_of(wildcards):
    return model_of(wildcards)["caffemodel"]


def preprocessing_of(wildcards):
    return model_of(wildcards)["preprocessing"]


def dataset_of(wildcards):
    return SETTINGS["datasets"][wildcards.dataset]


def calibrator_of(wildcards):
    return SETTINGS["calibrators"][wildcards.calibrator]


def method_of(wildcards):
    """What a calibrator does with its images, whichever they are."""
    return {key: value for key, value in calibrator_of(wildcards).items() if key not in ("images", "seed")}


def variant_of(wildcards):
    return CONFIGURATION.variants[wildcards.variant]


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


def case_of(wildcards):
    return f"<results>/{wildcards.model}/{wildcards.dataset}"


def prepared_prototxt_of(wildcards):
    return f"{case_of(wildcards)}/network/{variant_of(wildcards).table.network}/deploy.prototxt"


def prepared_caffemodel_of(wildcards):
    return f"{case_of(wildcards)}/network/{variant_of(wildcards).table.network}/weights.caffemodel"


def preparation_of(wildcards):
    """How a form of the network is made; the stock runtime feeds raw pixels, so their preprocessing goes in too."""
    table = CONFIGURATION.networks[wildcards.network]
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
    return {"precision": variant.precision, "mode": variant.mode, "compiler": variant.compiler}


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
        "calibrate_backend": "cpu" if variant.calibrator else None,
        "compile_backend": variant.compiler,
        "run_backend": variant.runtime,
    }


def reference_subject_of(wildcards):
    """What the fp32 row of a case says before any number."""
    return {"model": wildcards.model, "dataset": wildcards.dataset}


def part_of(wildcards):
    """Which part of the test images a shard is."""
    return {"shard": CONFIGURATION.shards.index(wildcards.shard), "shards": len(CONFIGURATION.shards)}


def accuracy_files():
    """Accuracy of fp32 for each case, then of every variant, in the order of the report."""
    references = [f"<results>/{case.model}/{case.dataset}/reference/accuracy.json" for case in CONFIGURATION.cases]
    return references + [f"{folder}/accuracy.json" for folder in run_folders()]


def run_folders():
    return [
        f"<results>/{case.model}/{case.dataset}/{target}/{variant.name}"
        for case, target, variant in CONFIGURATION.runs()
    ]


def verdict_files():
    """Verdict on every loadable, unless the configuration skips them."""
    return [f"{folder}/verdict.json" for folder in run_folders()] if SETTINGS["verify"]["images"] else []


def dumped_files():
    """Folders of `nvdla_runtime`-style dumps, where the configuration asks for them."""
    if SETTINGS["raw_dumps"]["format"] == "none":
        return []
    return [f"{folder}/dumps/{shard}.dimg" for folder in run_folders() for shard in CONFIGURATION.shards]


def exact_artefacts():
    """Artefacts that are the same bytes on every machine."""
    names = [f"images/test-{shard}.npz" for shard in CONFIGURATION.shards]
    names += [f"{target}/support.json" for target in SETTINGS["targets"]]
    for variant in CONFIGURATION.variants.values():
        if variant.calibrator is not None:
            names.append(f"images/calibration-{variant.calibrator}.npz")
        names += [f"network/{variant.table.network}/{name}" for name in ("deploy.prototxt", "weights.caffemodel")]
    return list(dict.fromkeys(f"<results>/{c.model}/{c.dataset}/{name}" for c in CONFIGURATION.cases for name in names))


def processor_dependent_artefacts():
    """Artefacts that follow from fp32 sums, whose last bits may differ on another class of processor."""
    paths = [f"<results>/{name}" for name in ("summary.tsv", "summary.tex")]
    paths += [f"<results>/report/accuracy.{suffix}" for suffix in ("svg", "pdf", "html")]
    names = [f"reference/{shard}.npz" for shard in CONFIGURATION.shards]
    for variant in CONFIGURATION.variants.values():
        if variant.calibrator is not None:
            folder = f"calibration/{variant.calibrator}"
            names += [f"{folder}/calibration.cache", f"{folder}/table.raw.json"]
            names += [f"{folder}/{variant.table.name}/{name}" for name in ("table.fixed.json", "changes.tsv")]
    paths += [f"<results>/{c.model}/{c.dataset}/{name}" for c in CONFIGURATION.cases for name in dict.fromkeys(names)]
    for folder in run_folders():
        paths += [f"{folder}/loadable.nvdla", f"{folder}/compile.json"]
        paths += [f"{folder}/dumps/{shard}.npz" for shard in CONFIGURATION.shards]
        if SETTINGS["verify"]["images"]:
            paths += [f"{folder}/layers.tsv", f"{folder}/verdict.json"]
    return paths + accuracy_files()


def input_files():
    """Files of the user that the sweep reads."""
    models = [SETTINGS["models"][case.model] for case in CONFIGURATION.cases]
    datasets = [SETTINGS["datasets"][case.dataset] for case in CONFIGURATION.cases]
    sources = [dataset[key] for dataset in datasets for key in ("source", "calibration_source") if key in dataset]
    paths = [model[key] for model in models for key in ("prototxt", "caffemodel")]
    return list(dict.fromkeys(paths + [path for source in sources for path in files_of(source)]))


def final_outputs():
    """The manifest, which needs every artefact, and what is made on request."""
    return ["<results>/manifest.json", *dumped_files()]


def print_summary():
    """Show the sweep's table on the terminal."""
    from nvdla_quant.evaluation.accuracy import read_accuracy
    from nvdla_quant.report.tables import read_verdict, render_summary, summarize

    accuracies, verdicts = (
        [Path(workflow.pathvars.apply(path)) for path in paths] for paths in (accuracy_files(), verdict_files())
    )
    if not all(path.is_file() for path in accuracies + verdicts):
        return  # Only a part of the sweep was asked for.
    rows = summarize(map(read_accuracy, accuracies), map(read_verdict, verdicts))
    terminal = sys.stdout.isatty()
    print(render_summary(rows, width=shutil.get_terminal_size().columns if terminal else 120, colour=terminal))
