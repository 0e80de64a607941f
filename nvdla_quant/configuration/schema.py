"""The schema of the configuration: what it refuses, in the words of a user, and its defaults."""

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from nvdla_quant.errors import ConfigError

SCHEMA_PATH = Path(__file__).with_name("config.schema.yaml")


def load_schema() -> dict[str, Any]:
    """Return the schema of the configuration."""
    # In C where PyYAML has that, as its wheels do: a tenth of the time, with each start of the workflow.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    schema: dict[str, Any] = yaml.load(SCHEMA_PATH.read_text(encoding="utf-8"), Loader=loader)
    return schema


def checked(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of `config` with the schema's defaults filled in.

    Raises
    ------
    ConfigError
        An unknown key or a value of the wrong kind; the message names each.
    """
    schema = load_schema()
    copied = json.loads(json.dumps(config))
    errors = sorted(jsonschema.Draft202012Validator(schema).iter_errors(copied), key=lambda e: list(map(str, e.path)))
    if errors:
        raise ConfigError("config: " + "; ".join(dict.fromkeys(map(explain, errors))))
    filled: dict[str, Any] = _with_defaults(copied, schema, schema)
    return filled


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
    "^[a-z0-9]+([_-][a-z0-9]+)*$(?!\n)": (
        "small letters a to z and digits, in words joined by single underscores or hyphens, such as 'nv_small'",
        "[a-z0-9_-]",
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


def explain(error: Any) -> str:
    """Return what is wrong in the words of a user: the key, what stands there, what is expected."""
    where = _where(error.absolute_path)
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        hints = [_hinted(str(key), known) for key in error.instance if key not in known]
        return f"{where}: unknown key {', '.join(hints)}; known keys are {', '.join(known)}"
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        instead = f"; {error.schema['$comment']}" if "$comment" in error.schema else ""
        return f"{where}: missing {', '.join(map(repr, missing))}{instead}"
    if error.validator == "oneOf":
        choices = [" and ".join(choice["required"]) for choice in error.validator_value]
        return f"{where}: give exactly one of {', '.join(choices)}"
    if error.validator == "not":
        return f"{where}: {error.schema['description']}"
    if error.validator == "pattern" and error.validator_value in _PATTERNS:
        allowed, character = _PATTERNS[error.validator_value]
        wrong = dict.fromkeys(part for part in error.instance if not re.fullmatch(character, part))
        found = f"; not allowed are {', '.join(map(repr, wrong))}" if wrong else ""
        return f"{where}: {error.instance!r} is no name that can be used here: {allowed}{found}"
    if error.validator == "anyOf":
        # Alternatives of another type say nothing of what was meant; of the others, the one that got furthest does.
        other = {sub.schema_path[0] for sub in error.context if sub.validator == "type" and not sub.path}
        if meant := [sub for sub in error.context if sub.schema_path[0] not in other]:
            return explain(max(meant, key=lambda sub: len(sub.path)))
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
