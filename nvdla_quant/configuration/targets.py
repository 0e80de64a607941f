"""Targets that a configuration names: shipped ones by their name, one's own by a record of name and specification."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from nvdla_quant.errors import ConfigError
from nvdla_quant.hardware.spec import read_spec
from nvdla_quant.hardware.targets import TARGETS

DEFAULT_CLOCK = 1_000_000_000
"""Hertz of a target that the configuration states none of; the schema's default too."""


def own_targets(asked: Sequence[str | Mapping[str, str]]) -> tuple[list[str], dict[str, str]]:
    """Return the names of the targets, and the paths of the specifications of those that are the user's own.

    A specification that is there is read, so that a mistake in it is found before anything runs; one that is not is for
    Snakemake to miss, as any other input.

    Parameters
    ----------
    asked : Sequence[str or Mapping]
        ``targets`` of the configuration.

    Raises
    ------
    ConfigError
        A name that nothing has, or that two have; or a specification that is not covered.
    """
    specs: dict[str, str] = {}
    names: list[str] = []
    for i, target in enumerate(asked):
        where = f"targets[{i}]"
        if isinstance(target, str):
            check_names([target], (), where)
            names.append(target)
            continue
        name, spec = target["name"], target["spec"]
        if name in TARGETS or name in specs:
            taken = "a shipped target" if name in TARGETS else "another record"
            raise ConfigError(f"config: {where}.name: {name!r} is the name of {taken}; choose another")
        if Path(spec).is_file():
            try:
                read_spec(Path(spec), name)
            except ConfigError as error:
                raise ConfigError(f"config: {where}.spec: {error}") from error
        specs[name] = spec
        names.append(name)
    return names, specs


def clocks_of(clock: float | Mapping[str, float], targets: Sequence[str], own: Collection[str]) -> dict[str, float]:
    """Return the clock of each of `targets`, in hertz.

    Parameters
    ----------
    clock : float or Mapping
        ``clock`` of the configuration: of all, or of those that it names.
    targets : Sequence[str]
        Names.
    own : Collection[str]
        Names of the user's own targets.

    Raises
    ------
    ConfigError
        A name that nothing has.
    """
    if not isinstance(clock, Mapping):
        return dict.fromkeys(targets, clock)
    check_names(clock, own, "clock")
    return {target: clock.get(target, DEFAULT_CLOCK) for target in targets}


def check_names(names: Collection[str], own: Collection[str], where: str) -> None:
    """Refuse names of targets that are neither shipped nor among the user's `own`."""
    for name in names:
        if name not in TARGETS and name not in own:
            known = ", ".join([*TARGETS, *own])
            raise ConfigError(
                f"config: {where}: there is no target {name!r}, but {known}; one of one's own stands in `targets`, as "
                "{ name: ..., spec: <path> }"
            )
