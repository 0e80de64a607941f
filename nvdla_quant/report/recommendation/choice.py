"""What every answer goes by, whatever was measured: of variants that are good enough the fastest, then int8."""

from collections.abc import Mapping, Sequence
from math import inf

from nvdla_quant.report.frames import Row
from nvdla_quant.report.recommendation.record import ALIKE
from nvdla_quant.report.words import bound_of, milliseconds

_BESIDE = 4
"""Slower variants that are named beside the choice."""


def choose(options: Mapping[str, Row], pool: Sequence[str], equal: Sequence[str], quality: str) -> Row:
    """Return the variant to use of a `pool`.

    Of each precision verified ones come first. Of those that are as fast int8 comes first, since it needs half the
    bytes, then what is among the `equal`, which nothing tells from the best, then what has most of `quality`, a column.
    Of variants that differ in the number of calibration images alone, the one with the most: a few images may be drawn
    badly another time.
    """

    def verified(name: str) -> bool:
        return not options[name]["unverified"]

    sound = {options[name]["precision"] for name in pool if verified(name)}
    pool = [name for name in pool if verified(name) or options[name]["precision"] not in sound]
    known = [float(options[name]["ms"]) for name in pool if options[name]["ms"] is not None]
    if known:
        pool = [name for name in pool if (options[name]["ms"] or inf) <= ALIKE * min(known)]
    pool = [name for name in pool if options[name]["precision"] == "int8"] or pool
    pool = [name for name in pool if name in equal] or pool
    nearest = options[max(pool, key=lambda name: float(options[name][quality] or 0.0))]
    same = [options[name] for name in pool if options[name]["series"] == nearest["series"]]
    return max(same, key=lambda group: int(group["images"] or 0))


def unverified(choice: Row) -> list[str]:
    """Say that nobody knows whether the loadable of the choice is right, and why, where that is so."""
    if not choice["unverified"]:
        return []
    said = "It was measured as any other; the loadable may still be wrong."
    return [f"Not verified: {choice['unverified']}. {said}"]


def times_of(target: str, choice: Row, options: Mapping[str, Row], keeping: Sequence[str], lost: str) -> str:
    """Say how long the choice takes on a target, by what, and how much longer or shorter the others.

    `lost` says why a faster one that is none of the `keeping` was not chosen.
    """
    if choice["ms"] is None:
        return f"{target}: how long it takes could not be estimated."
    base = float(choice["ms"])
    said = [f"{target}: {milliseconds(choice)} ms an image ({choice['cycles']:,} cycles, {bound_of(choice)})"]
    others = [one for one in options.values() if one is not choice and one["ms"] is not None]
    ratios = [(float(one["ms"]) / base, one) for one in others]
    alike = [one["group"] for ratio, one in ratios if 1 / ALIKE <= ratio <= ALIKE]
    if alike:
        said.append(f"as fast to 1 %: {listed(alike)}")
    longer = [(ratio, one) for ratio, one in ratios if ratio > ALIKE]
    said += [f"{one['group']} takes {ratio:.2f} times as long ({bound_of(one)})" for ratio, one in longer[:_BESIDE]]
    if len(longer) > _BESIDE:
        most = max(ratio for ratio, _ in longer)
        said.append(f"{len(longer) - _BESIDE} more take up to {most:.2f} times as long")
    for ratio, one in (found for found in ratios if found[0] < 1 / ALIKE):
        why = "it is not verified" if one["group"] in keeping else lost
        said.append(f"{one['group']} takes {ratio:.2f} times as long, but {why}")
    return f"{'; '.join(said)}."


def in_words(choice: Row) -> str:
    """Return a variant in words."""
    if choice["mode"] is None:
        return f"{choice['precision']} ({choice['group']})"
    images = "" if choice["images"] is None else f" with {choice['images']} calibration images"
    return f"int8 {choice['mode']}{images} ({choice['group']})"


def listed(names: Sequence[str], most: int = 4) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
