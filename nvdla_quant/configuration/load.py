"""The configuration: validated against the schema, defaults filled, names resolved into typed records."""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from nvdla_quant.configuration import sheets, sweep
from nvdla_quant.configuration.records import (
    CLASSIFICATION,
    METHODS,
    Case,
    Configuration,
    Metric,
    Run,
    Table,
    Variant,
)
from nvdla_quant.configuration.schema import checked, explain, load_schema
from nvdla_quant.configuration.sources import resolve_files
from nvdla_quant.configuration.stock_runtime import normalize_option
from nvdla_quant.configuration.sweep import EQUALIZED
from nvdla_quant.configuration.targets import check_names, clocks_of, own_targets
from nvdla_quant.errors import ConfigError, DatasetError
from nvdla_quant.hardware.targets import NVIDIA_COMPILER_TARGETS

EMBEDDED = {"compiler": "builtin", "runtime": "emulator"}
"""Backends of a variant that need nothing else."""
_METHOD_WORDS = {"search": "search-"}
"""What stands before a choice in the name of a variant, where the choice alone says too little."""


def load_configuration(config: Mapping[str, Any]) -> Configuration:
    """Validate `config`, fill in defaults and resolve names.

    Parameters
    ----------
    config : Mapping
        As read from YAML.

    Raises
    ------
    ConfigError
        An unknown key, a value of the wrong kind, a name that nothing has, or one that two records have.
    """
    config, sampled = sheets.take(config, load_schema(), explain)
    try:
        return _loaded(config)
    except ConfigError as error:
        raise ConfigError(sampled.placed(str(error))) from error


def _loaded(config: Mapping[str, Any]) -> Configuration:
    """Return a configuration that holds all its records; see `load_configuration`."""
    settings, sources = resolve_files(checked(config))
    settings["targets"], specs = own_targets(settings["targets"])
    settings["clock"] = clocks_of(settings["clock"], settings["targets"], specs)
    settings["keep"] = percentage(settings["keep"])
    settings["calibrators"], families = _calibrators(settings["calibrators"])
    cases = _cases(settings, families)
    variants: dict[str, Variant] = {}
    notes: list[str] = []
    for i, record in enumerate(settings["variants"]):
        check_names(record.get("targets", []), specs, f"variants[{i}].targets")
        if absent := [target for target in record.get("targets", []) if target not in settings["targets"]]:
            notes.append(f"config: variants[{i}]: no run on {', '.join(absent)}, which `targets` does not list")
        for variant in _variants(record, settings, families, f"variants[{i}]"):
            if variant.name in variants:
                raise ConfigError(f"config: variants[{i}]: two variants are called {variant.name!r}; give one a `name`")
            variants[variant.name] = variant
    every = (Run(*parts) for parts in product(cases, settings["targets"], variants.values()))
    runs = _selected([run for run in every if run.target in run.variant.targets], settings, families)
    used = {run.variant.name for run in runs}
    configuration = Configuration(
        settings,
        tuple(dict.fromkeys(run.case for run in runs)),
        {name: variant for name, variant in variants.items() if name in used},
        families,
        tuple(runs),
        sources,
        tuple(notes),
        specs,
    )
    _check_compiler(configuration)
    _check_device(configuration)
    _check_quantized(configuration)
    _check_methods(configuration)
    return configuration


def percentage(text: float | str) -> float:
    """Return the number of a percentage that the schema takes: ``99``, ``99 %`` or ``99.5%``."""
    return float(text.removesuffix("%")) if isinstance(text, str) else float(text)


def _check_compiler(configuration: Configuration) -> None:
    """Refuse runs on targets that NVIDIA's compiler does not know."""
    known = [target.name for target in NVIDIA_COMPILER_TARGETS]
    for run in configuration.runs:
        if run.variant.compiler == "nvdla_compiler" and run.target not in known:
            raise ConfigError(
                f"config: variant {run.variant.name}: nvdla_compiler knows {', '.join(known)}, and not {run.target}; "
                "give the variant `targets`, or compiler: builtin"
            )


def _check_device(configuration: Configuration) -> None:
    """Refuse runs that `nvdla_runtime`, or the device that is named, could not do when their turn comes."""
    for run in (run for run in configuration.runs if run.variant.runtime == "nvdla_runtime"):
        device = configuration.settings["backends"]["nvdla_runtime"]
        if device["device"] == "virtual-platform" and run.target not in device["virtual_platform"]["modules"]:
            where = "backends.nvdla_runtime.virtual_platform.modules"
            raise ConfigError(f"config: {where}: names none for {run.target}, which {run.variant.name} runs on")
        if run.variant.precision == "fp16" and run.variant.table.feeding == "quantized":
            try:
                normalize_option(configuration.preprocessing(run.case)["scale"])
            except DatasetError as error:
                case = f"{run.case.model} on {run.case.dataset}"
                raise ConfigError(f"config: variant {run.variant.name}, {case}: {error}") from error


def _calibrators(records: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the calibrators that `records` stand for, and the record that each comes from."""
    found: dict[str, Any] = {}
    families: dict[str, str] = {}
    for family, record in records.items():
        if ("percentile" in record) != (record["method"] in ("percentile", "tensorrt-legacy")):
            message = "`percentile` belongs to methods percentile and tensorrt-legacy, which need it"
            raise ConfigError(f"config: calibrators.{family}: {message}")
        if record["method"] == "qdq":
            found[family], families[family] = _without_images(family, record), family
            continue
        if "qdq_ranges" in record:
            raise ConfigError(f"config: calibrators.{family}.qdq_ranges: only method qdq takes it; remove it")
        for name, single in sweep.calibrators(family, record).items():
            if name in found:
                raise ConfigError(f"config: calibrators: {family} and {families[name]} both make {name!r}; rename one")
            images, batch = single["images"], single["batch_size"]
            if single["method"].startswith("tensorrt-") and images % batch:
                raise ConfigError(
                    f"config: calibrators.{family}.images: {images} in batches of {batch}; TensorRT calibrates with "
                    f"whole batches, so expected a multiple, {max(1, round(images / batch)) * batch} for example"
                )
            found[name], families[name] = single, family
    return found, families


def _without_images(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a calibrator that takes the scales of a file: what says which images it sees, and how, means nothing."""
    properties = load_schema()["$defs"]["calibrator"]["properties"]
    for key in ("images", "batch_size", "seed"):
        if record[key] != properties[key]["default"]:
            message = "method qdq takes the scales that the model has in it, and sees no images; remove it"
            raise ConfigError(f"config: calibrators.{name}.{key}: {message}")
    return {"method": "qdq", "qdq_ranges": record.get("qdq_ranges", "refuse")}


def _check_quantized(configuration: Configuration) -> None:
    """Refuse runs that take the scales of a file that can have none."""
    for run in configuration.runs:
        if run.variant.calibrator in configuration.qdq_calibrators and not configuration.is_onnx(run.case.model):
            raise ConfigError(
                f"config: variant {run.variant.name}: calibrator {run.variant.calibrator} takes the scales of a "
                f"quantized ONNX model, and {run.case.model} is a Caffe model, which has none; leave it out (exclude: "
                f"[{{ model: {run.case.model}, calibrator: {run.variant.calibrator} }}])"
            )


_ONLY_BUILTIN = {
    "correction": "nvdla_compiler takes no weights.steps.npz, where corrected biases are; use compiler: builtin",
    "rounding": "nvdla_compiler rounds weights itself and takes no weights.steps.npz; use compiler: builtin",
    "search": (
        "nvdla_compiler chooses scales of weights and steps of biases itself, and the search goes by the loadables of "
        "the builtin one; use compiler: builtin"
    ),
}
"""Why NVIDIA's compiler can do nothing with a method."""


def _check_methods(configuration: Configuration) -> None:
    """Refuse methods that a variant's compiler, preparation or calibrator takes no part in."""
    for variant in configuration.variants.values():
        for key, reason in _unusable(variant, variant.calibrator in configuration.qdq_calibrators):
            chosen = variant.table.preparation if key == "preparation" else getattr(variant, key)
            raise ConfigError(f"config: variant {variant.name}: {key}: {chosen}: {reason}")


def _unusable(variant: Variant, has_own_scales: bool) -> Iterator[tuple[str, str]]:
    """Yield the keys of methods that a variant cannot have, and why; a calibrator of method qdq `has_own_scales`."""
    methods = [key for key, plain in METHODS.items() if getattr(variant, key) != plain]
    if has_own_scales:
        for key in [*(["preparation"] if variant.table.is_equalized else []), *methods]:
            kept = f"calibrator {variant.calibrator} keeps the scales and the weights that the model has in it"
            yield key, f"{kept}; remove it, or use another calibrator"
    for key in methods:
        if variant.compiler == "nvdla_compiler":
            yield key, _ONLY_BUILTIN[key]
        if variant.table.preparation == "as-is" and key != "search":
            yield key, "weights and biases are chosen of the folded layers; use preparation: fold"


def _cases(settings: Mapping[str, Any], families: Mapping[str, str]) -> list[Case]:
    for i, case in enumerate(settings["cases"]):
        for kind in ("model", "dataset"):
            if case[kind] not in settings[f"{kind}s"]:
                known = ", ".join(settings[f"{kind}s"])
                raise ConfigError(f"config: cases[{i}].{kind}: no {kind} is called {case[kind]!r}; there are {known}")
        for name in case.get("overrides", {}).get("calibrators", {}):
            if name not in families and name not in families.values():
                raise ConfigError(f"config: cases[{i}].overrides.calibrators: {_no_calibrator(name, families)}")
    cases = [
        Case(case["model"], case["dataset"], _metric(case, f"cases[{i}]"), case.get("overrides", {}))
        for i, case in enumerate(settings["cases"])
    ]
    if twice := sorted({f"{c.model}/{c.dataset}" for c in cases if cases.count(c) > 1}):
        raise ConfigError(f"config: cases: {', '.join(twice)} stands twice")
    return cases


def _metric(case: Mapping[str, Any], where: str) -> Metric:
    """Return what a case is measured by."""
    kind = case["metric"]
    if kind == CLASSIFICATION:
        for key in ("argmax", "peak"):
            if key in case:
                raise ConfigError(f"config: {where}.{key}: metric {kind} has none; remove it, or set metric: fidelity")
    if kind != "command":
        for key in ("command", "better"):
            if key in case:
                raise ConfigError(f"config: {where}.{key}: metric {kind} has none; remove it, or set metric: command")
    elif "command" not in case:
        raise ConfigError(f"config: {where}.command: metric command needs the program that gives each image a number")
    given = {key: case[key] for key in ("argmax", "peak", "better") if key in case}
    return Metric(kind, command=tuple(case.get("command", ())), **given)


def _no_calibrator(name: str, families: Mapping[str, str]) -> str:
    return f"no calibrator is called {name!r}; there are {', '.join(dict.fromkeys([*families.values(), *families]))}"


def _variants(
    record: Mapping[str, Any], settings: Mapping[str, Any], families: Mapping[str, str], where: str
) -> Iterator[Variant]:
    """Yield the variants that `record` stands for: a list and the name of a family of calibrators make several."""
    names = [record["calibrator"]] if isinstance(record.get("calibrator"), str) else record.get("calibrator", [])
    calibrators: list[str] = []
    for name in names:
        members = [name] if name in families else [member for member in families if families[member] == name]
        if not members:
            raise ConfigError(f"config: {where}.calibrator: {_no_calibrator(name, families)}")
        calibrators += members
    swept = {**record, "calibrator": calibrators} if calibrators else record
    several = list(sweep.combinations(swept, sweep.VARIANT_KEYS))
    if "name" in record and len(several) > 1:
        raise ConfigError(f"config: {where}.name: the record stands for {len(several)} variants; remove the name")
    for single in several:
        yield _variant(single, settings, where)


def _variant(record: Mapping[str, Any], settings: Mapping[str, Any], where: str) -> Variant:
    int8 = record["precision"] == "int8"
    if not int8:
        for key in ("mode", "calibrator"):
            if key in record:
                raise ConfigError(f"config: {where}.{key}: only an int8 variant has one; remove it")
        for key, plain in METHODS.items():
            if record[key] != plain:
                raise ConfigError(f"config: {where}.{key}: {record[key]}: only an int8 variant has one; remove it")
        if record["preparation"] == EQUALIZED:
            reason = "it evens out ranges for int8, on the images of a calibrator, and fp16 has none; use fold"
            raise ConfigError(f"config: {where}.preparation: {EQUALIZED}: {reason}")
    calibrator = record.get("calibrator")
    targets = tuple(record.get("targets", settings["targets"]))
    parts = [record["precision"], *((record["mode"], calibrator) if int8 else ())]
    if record["preparation"] != "fold":
        parts.append(record["preparation"])
    if record["feeding"] != "quantized":
        parts.append(record["feeding"])
    if not record["unify_scales"]:
        parts.append("not-unified")
    parts += [_METHOD_WORDS.get(key, "") + record[key] for key, plain in METHODS.items() if record[key] != plain]
    for key, embedded in EMBEDDED.items():
        if record[key] != embedded:
            if record[key] not in settings["backends"]:
                raise ConfigError(f"config: {where}.{key}: {record[key]} needs the section backends.{record[key]}")
            parts.append(record[key].replace("_", "-"))
    return Variant(
        name=record.get("name", "-".join(parts)),
        precision=record["precision"],
        mode=record.get("mode"),
        calibrator=calibrator,
        table=Table(record["preparation"], record["feeding"], record["unify_scales"]),
        targets=targets,
        compiler=record["compiler"],
        runtime=record["runtime"],
        **{key: record[key] for key in METHODS},
    )


def _selected(runs: list[Run], settings: Mapping[str, Any], families: Mapping[str, str]) -> list[Run]:
    """Return the runs that some rule of `include` picks, if there is any, and none of `exclude`."""
    axes = {run: _axes(run, families) for run in runs}
    for key in ("include", "exclude"):
        for i, rule in enumerate(settings[key]):
            if not any(sweep.matches(rule, axes[run]) for run in runs):
                raise ConfigError(f"config: {key}[{i}]: picks none of the {len(runs)} runs; is a name spelled wrong?")
    if settings["include"]:
        runs = [run for run in runs if any(sweep.matches(rule, axes[run]) for rule in settings["include"])]
    runs = [run for run in runs if not any(sweep.matches(rule, axes[run]) for rule in settings["exclude"])]
    if not runs:
        raise ConfigError("config: nothing is left to run; look at targets, include and exclude")
    return runs


def _axes(run: Run, families: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return what a run is called, by the keys of a rule."""
    variant = run.variant
    calibrator = () if variant.calibrator is None else (variant.calibrator, families[variant.calibrator])
    return {
        "model": (run.case.model,),
        "dataset": (run.case.dataset,),
        "target": (run.target,),
        "variant": (variant.name,),
        "precision": (variant.precision,),
        "mode": () if variant.mode is None else (variant.mode,),
        "calibrator": calibrator,
        "preparation": (variant.table.preparation,),
        "feeding": (variant.table.feeding,),
        **{key: (getattr(variant, key),) for key in METHODS},
        "compiler": (variant.compiler,),
        "runtime": (variant.runtime,),
    }
