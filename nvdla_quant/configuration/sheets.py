"""Sample sheets: records of the configuration as lines of a TSV file.

A column is a key of the record, ``preprocessing.mean`` a key of a section of it; a cell holds what would stand in the
YAML file, an empty one nothing.
"""

import csv
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jsonschema
import yaml

from nvdla_quant.errors import ConfigError

NAMED = {"models": "model", "datasets": "dataset"}
"""Keys of the configuration whose records have names, which a sheet has in its column ``name``, and their schemas."""
LISTED = {"cases": "case", "variants": "variant"}
"""Keys whose records stand in a list, and their schemas."""

Explain = Callable[[Any], str]
"""Puts an error of the schema into the words of a user: the key, a colon, what is wrong."""


@dataclass(frozen=True)
class Sheets:
    """Sheets of a configuration.

    Attributes
    ----------
    paths : dict[str, str]
        Path of each, by its key in the configuration.
    lines : dict[str, list[int]]
        Line of each record in its file.
    """

    paths: dict[str, str] = field(default_factory=dict)
    lines: dict[str, list[int]] = field(default_factory=dict)

    def placed(self, message: str) -> str:
        """Return a message with file, row and column in place of each record that stands in a sheet."""

        def place(found: re.Match[str]) -> str:
            key, number, column = found.groups()
            if key not in self.paths:
                return found[0]
            return _place(self.paths[key], self.lines[key][int(number)], column)

        return re.sub(r"\b(cases|variants)\[(\d+)\](?:\.([\w.]+))?", place, message)


def take(config: Mapping[str, Any], schema: Mapping[str, Any], explain: Explain) -> tuple[dict[str, Any], Sheets]:
    """Return `config` with the records of its sheets in the place of their paths, and where those stand.

    Parameters
    ----------
    config : Mapping
        As read from YAML.
    schema : Mapping
        Schema of the configuration, which each row is held to.
    explain : callable
        Puts errors of the schema into words.

    Raises
    ------
    ConfigError
        A sheet cannot be read, or a row is no record: with file, row and column.
    """
    taken, sheets = dict(config), Sheets()
    for key, kind in (NAMED | LISTED).items():
        path = config.get(key)
        if not isinstance(path, str):
            continue
        rows = _read(key, path)
        records = {line: _record(path, line, cells) for line, cells in rows.items()}
        names = _names(path, records, schema, explain) if key in NAMED else {}
        for line, record in records.items():
            _check(path, line, rows[line], record, schema, kind, explain)
        taken[key] = {names[line]: record for line, record in records.items()} if names else list(records.values())
        sheets.paths[key], sheets.lines[key] = path, list(records)
    return taken, sheets


def _place(path: str, line: int, column: str | None = None) -> str:
    return f"{path}, row {line}" + (f", column {column}" if column else "")


def _read(key: str, path: str) -> dict[int, dict[str, str]]:
    """Return the cells that hold something of each row, by the number of its line."""
    import pandas as pd  # Its import takes longer than the rest of the configuration, and few have a sheet.

    if not path.endswith(".tsv"):
        raise ConfigError(f"config: {key}: {path!r} is neither records nor a sheet, which is a file that ends in .tsv")
    try:
        frame = pd.read_csv(
            path,
            sep="\t",
            header=None,
            dtype="string",
            keep_default_na=False,
            na_values=[""],
            quoting=csv.QUOTE_NONE,
            skip_blank_lines=False,
            encoding="utf-8-sig",
        )
    except OSError as error:
        raise ConfigError(f"config: {key}: {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"config: {key}: {path}: not a TSV file in UTF-8: {error}") from error
    frame = frame.apply(lambda column: column.str.strip()).replace("", pd.NA)
    head = frame.iloc[0]
    if head.isna().any():
        raise ConfigError(f"config: {_place(path, 1)}: column {int(head.isna().argmax()) + 1} has no name")
    if head.duplicated().any():
        raise ConfigError(f"config: {_place(path, 1)}: two columns are called {head[head.duplicated()].iloc[0]!r}")
    body = frame.iloc[1:].set_axis(head.tolist(), axis="columns").dropna(how="all")
    if body.empty:
        raise ConfigError(f"config: {path}: a sheet without a row")
    return {int(i) + 1: row.dropna().to_dict() for i, row in body.iterrows()}


def _record(path: str, line: int, cells: Mapping[str, str]) -> dict[str, Any]:
    """Return the record of a row."""
    record: dict[str, Any] = {}
    for column, text in cells.items():
        *sections, last = column.split(".")
        section = record
        for name in sections:
            section = section.setdefault(name, {})
            if not isinstance(section, dict):
                raise ConfigError(
                    f"config: {_place(path, line, column)}: column {name!r} says the same; leave one empty"
                )
        if last in section:
            raise ConfigError(f"config: {_place(path, line, column)}: other columns say the same; leave one empty")
        try:
            section[last] = text if column == "name" else yaml.safe_load(text)
        except yaml.YAMLError as error:
            problem = getattr(error, "problem", None) or "it cannot be read"
            raise ConfigError(f"config: {_place(path, line, column)}: {text!r} is not YAML: {problem}") from error
    return record


def _names(
    path: str, records: Mapping[int, dict[str, Any]], schema: Mapping[str, Any], explain: Explain
) -> dict[int, str]:
    """Return the name of each record, which loses it."""
    names: dict[int, str] = {}
    for line, record in records.items():
        if "name" not in record:
            raise ConfigError(f"config: {_place(path, line, 'name')}: a record needs a name")
        name = record.pop("name")
        for error in jsonschema.Draft202012Validator(schema["$defs"]["name"]).iter_errors(name):
            raise ConfigError(f"config: {_place(path, line, 'name')}: {_what(explain, error)}")
        if name in names.values():
            raise ConfigError(f"config: {_place(path, line, 'name')}: {name!r} stands twice")
        names[line] = name
    return names


def _check(
    path: str,
    line: int,
    cells: Mapping[str, str],
    record: Mapping[str, Any],
    schema: Mapping[str, Any],
    kind: str,
    explain: Explain,
) -> None:
    """Hold a row to the schema of its record."""
    validator = jsonschema.Draft202012Validator({"$ref": f"#/$defs/{kind}", "$defs": schema["$defs"]})
    errors = sorted(validator.iter_errors(record), key=lambda error: list(map(str, error.path)))
    said = [f"{_place(path, line, _column(error, cells))}: {_what(explain, error)}" for error in errors]
    if said:
        raise ConfigError("config: " + "; ".join(dict.fromkeys(said)))


def _what(explain: Explain, error: Any) -> str:
    """Return what is wrong, without the key, which is the column."""
    return explain(error).partition(": ")[2]


def _column(error: Any, cells: Mapping[str, str]) -> str:
    """Return the column that an error of the schema is about, whether it is there or missing."""
    parts = [str(part) for part in error.absolute_path]
    if error.validator == "additionalProperties":
        parts += [str(key) for key in error.instance if key not in error.schema.get("properties", {})][:1]
    if error.validator == "required":
        parts += [key for key in error.validator_value if key not in error.instance][:1]
    whole = ".".join(parts)
    # Of a list or a mapping in a cell the column is what holds it.
    return next((c for c in (".".join(parts[:n]) for n in range(len(parts), 0, -1)) if c in cells), whole)
