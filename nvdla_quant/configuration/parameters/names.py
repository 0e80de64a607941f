"""Names in the paths of files: what a path gives a rule, and which names may stand in it."""

import re
from collections.abc import Collection, Iterable
from typing import Protocol

ANY_NAME = "[a-z0-9-]+"
"""Snakemake writes constraints into all its patterns and goes over those for each file of a plan, which hundreds of
names make slow. The lookup of its record refuses a name that is not in the configuration."""


class Wildcards(Protocol):
    """Values of the wildcards of a path, as Snakemake gives them; each rule has some of these."""

    model: str
    dataset: str
    target: str
    variant: str
    calibrator: str
    table: str
    network: str
    shard: str
    engine: str
    digest: str
    path: str


def alternatives(names: Iterable[str]) -> str:
    """Return a regular expression that matches exactly `names`; nothing where there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


def those(chosen: Iterable[str], names: Collection[str]) -> str:
    """Return `alternatives` for those of `names` that are `chosen`; where all are, any name, however many there are."""
    chosen = list(chosen)
    return ANY_NAME if set(chosen) == set(names) else alternatives(chosen)


def known(kind: str, name: str, names: Collection[str]) -> str:
    """Return `name`, if it is one of `names`; in a path that Snakemake was asked for, any may stand.

    Raises
    ------
    SystemExit
        It is none of them. Snakemake would wrap any other exception in its own frames, and print those around the one
        line that a user can act on.
    """
    if name not in names:
        raise SystemExit(f"config: there is no {kind} {name!r}, but {', '.join(names) or 'none at all'}")
    return name
