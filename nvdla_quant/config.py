"""The configuration: validated against the schema, defaults filled, names resolved into typed records.

``python -m nvdla_quant.config`` prints ``config/README.md``, which is generated from the schema.
"""

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from nvdla_quant.errors import ConfigError

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
    """A model measured on a data set."""

    model: str
    dataset: str


@dataclass(frozen=True)
class Configuration:
    """A validated configuration.

    Attributes
    ----------
    settings : Mapping
        The configuration as the schema describes it, defaults filled.
    cases : tuple[Case, ...]
        Models on data sets, in the order of the file.
    variants : Mapping[str, Variant]
        Variants by name, in the order of the file.
    """

    settings: Mapping[str, Any]
    cases: tuple[Case, ...]
    variants: Mapping[str, Variant]

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

    def runs(self) -> Iterator[tuple[Case, str, Variant]]:
        """Every case, target and variant that is compiled and measured, in the order of the report."""
        for case, target, variant in product(self.cases, self.settings["targets"], self.variants.values()):
            if target in variant.targets:
                yield case, target, variant


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
    expected = error.schema.get("description", "")
    return f"{where}: {error.message}" + (f" ({' '.join(expected.split())})" if expected else "")


def _with_defaults(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    """Return a copy of a valid `value` with the schema's defaults filled in."""
    if "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return _with_defaults(value, target, root)
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        extra = schema.get("additionalProperties")
        filled = {
            key: _with_defaults(item, properties.get(key, extra if isinstance(extra, dict) else {}), root)
            for key, item in value.items()
        }
        for key, subschema in properties.items():
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
    if int8 and calibrator not in settings["calibrators"]:
        known = ", ".join(settings["calibrators"])
        raise ConfigError(f"config: {where}.calibrator: no calibrator is called {calibrator!r}; there are {known}")
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
    config = json.loads(json.dumps(config))
    errors = sorted(jsonschema.Draft202012Validator(schema).iter_errors(config), key=lambda e: list(map(str, e.path)))
    if errors:
        raise ConfigError("config: " + "; ".join(dict.fromkeys(map(_explain, errors))))
    settings = _with_defaults(config, schema, schema)
    for i, case in enumerate(settings["cases"]):
        for kind in ("model", "dataset"):
            if case[kind] not in settings[f"{kind}s"]:
                known = ", ".join(settings[f"{kind}s"])
                raise ConfigError(f"config: cases[{i}].{kind}: no {kind} is called {case[kind]!r}; there are {known}")
    for name, calibrator in settings["calibrators"].items():
        if ("percentile" in calibrator) != (calibrator["method"] == "percentile"):
            raise ConfigError(f"config: calibrators.{name}: `percentile` belongs to method percentile, which needs it")
    cases = tuple(Case(**case) for case in settings["cases"])
    if twice := sorted({f"{c.model}/{c.dataset}" for c in cases if cases.count(c) > 1}):
        raise ConfigError(f"config: cases: {', '.join(twice)} stands twice")
    variants: dict[str, Variant] = {}
    for i, record in enumerate(settings["variants"]):
        variant = _variant(record, settings, f"variants[{i}]")
        if variant.name in variants:
            raise ConfigError(f"config: variants[{i}]: two variants are called {variant.name!r}; give one a `name`")
        variants[variant.name] = variant
    return Configuration(settings, cases, variants)


def _rows(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[str]:
    required = schema.get("required", [])
    for key, value in schema.get("properties", {}).items():
        reference = root["$defs"][value["$ref"].rsplit("/", 1)[1]] if "$ref" in value else {}
        full = {**reference, **value}
        kind = " or ".join(f"`{item}`" for item in full["enum"]) if "enum" in full else full.get("type", "")
        default = "required" if key in required else f"`{json.dumps(full['default'])}`" if "default" in full else "none"
        yield f"| `{key}` | {kind} | {default} | {' '.join(full.get('description', '').split())} |"


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
        "The default is `config.yaml` at the top of the repository. `--configfile my.yaml` reads yours on top",
        "of it, key by key; lists are replaced whole.",
        "",
        *head,
        *_rows(schema, schema),
    ]
    for title, section in (
        ("A model (`models.<name>`)", "model"),
        ("Preprocessing (`models.<name>.preprocessing`)", "preprocessing"),
        ("A data set (`datasets.<name>`)", "dataset"),
        ("Its files (`datasets.<name>.source`)", "source"),
        ("A case (`cases[]`)", "case"),
        ("A calibrator (`calibrators.<name>`)", "calibrator"),
        ("A variant (`variants[]`)", "variant"),
    ):
        lines += ["", f"## {title}", "", *head, *_rows(schema["$defs"][section], schema)]
    for key in ("emulator", "verify", "raw_dumps"):
        lines += ["", f"## `{key}`", "", *head, *_rows(schema["properties"][key], schema)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(render_markdown(), end="")
