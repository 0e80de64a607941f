"""The configuration: validated against the schema, defaults filled, names resolved into typed records.

``python -m nvdla_quant.config`` prints ``config/README.md``, which is generated from the schema.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from nvdla_quant import sheets, sweep
from nvdla_quant.configuration.stock_runtime import normalize_option
from nvdla_quant.errors import ConfigError, DatasetError
from nvdla_quant.jobs.downloads import Source, resolve

EMBEDDED = {"compiler": "builtin", "runtime": "emulator"}
"""Backends of a variant that need nothing else."""

SCHEMA_PATH = Path(__file__).resolve().parent.parent / "schemas" / "config.schema.yaml"


@dataclass(frozen=True)
class Table:
    """One way to make a fixed table from a calibration cache."""

    preparation: str
    feeding: str
    unify_scales: bool

    @property
    def name(self) -> str:
        """Folder of the table: preparation, feeding, and `not-unified` where scales are left alone."""
        return f"{self.preparation}-{self.feeding}" + ("" if self.unify_scales else "-not-unified")

    @property
    def network(self) -> str:
        """Folder of the network that it belongs to: the preparation, and the stock runtime, which feeds raw pixels."""
        return self.preparation + ("" if self.feeding == "quantized" else f"-{self.feeding}")


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


@dataclass(frozen=True)
class Case:
    """A model measured on a data set, and what it sets otherwise than their records and the calibrators'."""

    model: str
    dataset: str
    overrides: Mapping[str, Any] = field(default_factory=dict, compare=False)


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
        Number of calibration images; None in fp16.
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
    """

    settings: Mapping[str, Any]
    cases: tuple[Case, ...]
    variants: Mapping[str, Variant]
    families: Mapping[str, str]
    runs: tuple[Run, ...]
    sources: Mapping[str, Source]

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
        seedless = sweep.without(calibrator, "seed", record["seed"]) if len(runs) > 1 else calibrator
        series = sweep.without(seedless, "images", record["images"])
        name = variant.name.replace(calibrator, seedless)
        return Group(tuple(runs), name, record["images"], name.replace(seedless, series), seedless)

    def mode_pairs(self, case: Case) -> tuple[tuple[Run, Run], ...]:
        """Return the runs of `case` that differ in nothing but the mode: per-kernel and per-filter."""
        modes: dict[Any, dict[str, Run]] = {}
        for run in self.runs_of(case):
            mode = run.variant.mode
            if mode is not None:
                name = run.variant.name.replace(mode, "")
                modes.setdefault((run.target, replace(run.variant, name=name, mode=None)), {})[mode] = run
        return tuple((found["per-kernel"], found["per-filter"]) for found in modes.values() if len(found) == 2)

    @property
    def tables(self) -> Mapping[str, Table]:
        """Tables that the int8 variants use, by name."""
        return {v.table.name: v.table for v in self.variants.values() if v.calibrator is not None}

    @property
    def networks(self) -> Mapping[str, Table]:
        """Forms of the network that the variants compile, by the name of their folder."""
        return {v.table.network: v.table for v in self.variants.values()}

    @property
    def shards(self) -> tuple[str, ...]:
        """Names of the shards of a case's test images."""
        count = self.settings["shards"]
        return tuple(f"{i}-of-{count}" for i in range(1, count + 1))


def load_schema() -> dict[str, Any]:
    """Return the schema of the configuration."""
    schema: dict[str, Any] = yaml.safe_load(SCHEMA_PATH.read_text(encoding="utf-8"))
    return schema


def _where(path: Any) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "the configuration"


def _hinted(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, 1)
    return f"{key!r}" + (f" (did you mean {close[0]!r}?)" if close else "")


_PATTERNS = {
    "^[a-z0-9]+(-[a-z0-9]+)*$(?!\n)": (
        "small letters a to z and digits, in words joined by single hyphens, such as 'lenet-5' (it is part of paths)",
        "[a-z0-9-]",
    ),
    "^[A-Za-z0-9_][A-Za-z0-9_.:%-]*$(?!\n)": (
        "letters, digits and _ . : % -, the first one a letter, a digit or _",
        "[A-Za-z0-9_.:%-]",
    ),
    "^[A-Za-z0-9_][A-Za-z0-9_.-]*$(?!\n)": (
        "letters, digits and _ . -, the first one a letter, a digit or _",
        "[A-Za-z0-9_.-]",
    ),
    "^/[A-Za-z0-9_./-]*$(?!\n)": ("a path from the root, of letters, digits and _ . / -", "[A-Za-z0-9_./-]"),
}
"""What the schema's patterns allow, in words, and any one character of it."""


def _explain(error: Any) -> str:
    """Return what is wrong in the words of a user: the key, what stands there, what is expected."""
    where = _where(error.absolute_path)
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        unknown = [key for key in error.instance if key not in known]
        hints = [
            f"{key!r}"
            + (f" (did you mean {close[0]!r}?)" if (close := difflib.get_close_matches(key, known, 1)) else "")
            for key in map(str, unknown)
        ]
        return f"{where}: unknown key {', '.join(hints)}; known keys are {', '.join(known)}"
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        return f"{where}: missing {', '.join(map(repr, missing))}"
    if error.validator == "oneOf":
        choices = [" and ".join(choice["required"]) for choice in error.validator_value]
        return f"{where}: give exactly one of {', '.join(choices)}"
    if error.validator == "pattern" and error.validator_value in _PATTERNS:
        allowed, character = _PATTERNS[error.validator_value]
        wrong = dict.fromkeys(part for part in error.instance if not re.fullmatch(character, part))
        found = f"; not allowed are {', '.join(map(repr, wrong))}" if wrong else ""
        return f"{where}: {error.instance!r} is no name that can be used here: {allowed}{found}"
    if error.validator == "anyOf":
        # Alternatives of another type say nothing of what was meant; of the others, the one that got furthest does.
        other = {sub.schema_path[0] for sub in error.context if sub.validator == "type" and not sub.path}
        if meant := [sub for sub in error.context if sub.schema_path[0] not in other]:
            return _explain(max(meant, key=lambda sub: len(sub.path)))
    expected = error.schema.get("description", "")
    return f"{where}: {error.message}" + (f" ({' '.join(expected.split())})" if expected else "")


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `schema`, or what it refers to."""
    target: Any = root
    for part in schema.get("$ref", "#").removeprefix("#").split("/")[1:]:
        target = target[part]
    return target if "$ref" in schema else schema


def _with_defaults(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    """Return a copy of a valid `value` with the schema's defaults filled in."""
    schema = _resolved(schema, root)
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        extra = schema.get("additionalProperties")
        filled = {
            key: _with_defaults(item, properties.get(key, extra if isinstance(extra, dict) else {}), root)
            for key, item in value.items()
        }
        for key, subschema in properties.items():
            subschema = _resolved(subschema, root)
            if key not in filled and "default" in subschema:
                filled[key] = _with_defaults(subschema["default"], subschema, root)
        return filled
    if isinstance(value, list):
        return [_with_defaults(item, schema.get("items", {}), root) for item in value]
    return value


def _variant(record: Mapping[str, Any], settings: Mapping[str, Any], where: str) -> Variant:
    int8 = record["precision"] == "int8"
    if not int8:
        for key in ("mode", "calibrator"):
            if key in record:
                raise ConfigError(f"config: {where}.{key}: only an int8 variant has one; remove it")
    calibrator = record.get("calibrator")
    targets = tuple(record.get("targets", settings["targets"]))
    if unused := [target for target in targets if target not in settings["targets"]]:
        raise ConfigError(f"config: {where}.targets: {', '.join(unused)} is not among the configuration's targets")
    parts = [record["precision"], *((record["mode"], calibrator) if int8 else ())]
    if record["preparation"] != "fold":
        parts.append(record["preparation"])
    if record["feeding"] != "quantized":
        parts.append(record["feeding"])
    if not record["unify_scales"]:
        parts.append("not-unified")
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
    )


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
    schema = load_schema()
    config, sampled = sheets.take(config, schema, _explain)
    try:
        return _load(config, schema)
    except ConfigError as error:
        raise ConfigError(sampled.placed(str(error))) from error


def _load(config: Mapping[str, Any], schema: Mapping[str, Any]) -> Configuration:
    """Return a configuration that holds all its records; see `load_configuration`."""
    config = json.loads(json.dumps(config))
    errors = sorted(jsonschema.Draft202012Validator(schema).iter_errors(config), key=lambda e: list(map(str, e.path)))
    if errors:
        raise ConfigError("config: " + "; ".join(dict.fromkeys(map(_explain, errors))))
    settings = _with_defaults(config, schema, schema)
    settings, sources = _resolve_files(settings)
    settings["calibrators"], families = _calibrators(settings["calibrators"])
    cases = _cases(settings, families)
    variants: dict[str, Variant] = {}
    for i, record in enumerate(settings["variants"]):
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
    )
    _check_device(configuration)
    return configuration


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


def _resolve_files(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Source]]:
    """Put a path in the place of each file that is given by a URL or inside an archive."""
    sources: dict[str, Source] = {}

    def replaced(value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("sha256"), str):
            path, source = resolve(value)
            sources[path] = source
            if source.url is not None:
                sources[source.path] = replace(source, member=None)
            return path
        if isinstance(value, dict):
            return {key: replaced(item) for key, item in value.items()}
        return [replaced(item) for item in value] if isinstance(value, list) else value

    return replaced(settings), sources


def _calibrators(records: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the calibrators that `records` stand for, and the record that each comes from."""
    found: dict[str, Any] = {}
    families: dict[str, str] = {}
    for family, record in records.items():
        if ("percentile" in record) != (record["method"] in ("percentile", "tensorrt-legacy")):
            message = "`percentile` belongs to methods percentile and tensorrt-legacy, which need it"
            raise ConfigError(f"config: calibrators.{family}: {message}")
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


def _cases(settings: Mapping[str, Any], families: Mapping[str, str]) -> list[Case]:
    for i, case in enumerate(settings["cases"]):
        for kind in ("model", "dataset"):
            if case[kind] not in settings[f"{kind}s"]:
                known = ", ".join(settings[f"{kind}s"])
                raise ConfigError(f"config: cases[{i}].{kind}: no {kind} is called {case[kind]!r}; there are {known}")
        for name in case.get("overrides", {}).get("calibrators", {}):
            if name not in families and name not in families.values():
                raise ConfigError(f"config: cases[{i}].overrides.calibrators: {_no_calibrator(name, families)}")
    cases = [Case(**case) for case in settings["cases"]]
    if twice := sorted({f"{c.model}/{c.dataset}" for c in cases if cases.count(c) > 1}):
        raise ConfigError(f"config: cases: {', '.join(twice)} stands twice")
    return cases


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
        "compiler": (variant.compiler,),
        "runtime": (variant.runtime,),
    }


def _kind(schema: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    """Return what a value may be, in words."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return _kind(root["$defs"][name], root) if name != "file" else "[file](#a-file)"
    if "enum" in schema:
        return " or ".join(f"`{item}`" for item in schema["enum"])
    if "anyOf" in schema:
        return ", or ".join(_kind(choice, root) for choice in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'], root)}"
    kind = schema.get("type", "")
    if isinstance(kind, list) and kind[0] in ("object", "array"):
        return f"{_kind({**schema, 'type': kind[0]}, root)}, or [sheet](#a-sheet)"
    if isinstance(kind, list):
        return f"{kind[0]}, or list of such"
    return str(kind)


def _rows(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[str]:
    required = schema.get("required", [])
    for key, value in schema.get("properties", {}).items():
        reference = root["$defs"][value["$ref"].rsplit("/", 1)[1]] if "$ref" in value else {}
        full = {**reference, **value}
        kind = _kind(full, root)
        default = "required" if key in required else f"`{json.dumps(full['default'])}`" if "default" in full else "none"
        yield f"| `{key}` | {kind} | {default} | {' '.join(full.get('description', '').split())} |"


_BACKEND_TITLES = {
    "tensorrt": "`backends.tensorrt`",
    "nvdla_compiler": "`backends.nvdla_compiler`",
    "nvdla_runtime": "`backends.nvdla_runtime`",
    "ssh": "`backends.nvdla_runtime.ssh`",
    "virtual_platform": "`backends.nvdla_runtime.virtual_platform`",
}


def render_markdown() -> str:
    """Return ``config/README.md``: every key of the schema with type, default and meaning."""
    schema = load_schema()
    head = ["| key | type | default | meaning |", "|---|---|---|---|"]
    lines = [
        "# Configuration",
        "",
        "<!-- Generated from schemas/config.schema.yaml by `python -m nvdla_quant.config > config/README.md`. -->",
        "",
        " ".join(schema["description"].split()),
        "",
        "The default is `config.yaml` at the top of the repository. `--configfile my.yaml` with `models` in it stands",
        "for itself; one without is laid over the default, key by key, and replaces lists whole. Several files",
        "(`--configfile a.yaml b.yaml`) are laid over each other in their order. docs/sweeps.md shows how it is used.",
        "",
        *head,
        *_rows(schema, schema),
    ]
    for title, section in (
        ("A model (`models.<name>`)", "model"),
        ("Preprocessing (`models.<name>.preprocessing`)", "preprocessing"),
        ("A data set (`datasets.<name>`)", "dataset"),
        ("Its files (`datasets.<name>.source`)", "source"),
        ("A file", "remote"),
        ("A case (`cases[]`)", "case"),
        ("Overrides (`cases[].overrides`)", "overrides"),
        ("A calibrator (`calibrators.<name>`)", "calibrator"),
        ("A variant (`variants[]`)", "variant"),
        ("A rule (`include[]`, `exclude[]`)", "rule"),
    ):
        record = schema["$defs"][section]
        words = [" ".join(record["description"].split()), ""] if "description" in record else []
        lines += ["", f"## {title}", "", *words, *head, *_rows(record, schema)]
    lines += ["", "## A sheet", "", " ".join(schema["$defs"]["sheet"]["description"].split())]
    for name, title in _BACKEND_TITLES.items():
        lines += ["", f"## {title}", "", *head, *_rows(schema["$defs"][name], schema)]
    for key in ("emulator", "verify", "raw_dumps"):
        lines += ["", f"## `{key}`", "", *head, *_rows(schema["properties"][key], schema)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(render_markdown(), end="")
