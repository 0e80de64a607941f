"""What a sweep costs, told from two small ones, beside a third that is measured; and what a very large one would.

usage: python -m benchmarks.cost [--images 100 300 1000]

The sweep is that of `benchmarks.large_run` (ResNet-18 at 224 x 224, six variants for nv_full). The seconds of a rule's
jobs, and the bytes of the results, are a constant and a part for each test image; the two smaller runs say both.
"""

import argparse
from collections.abc import Mapping

from benchmarks.default_run import Jobs
from benchmarks.large_run import VARIANTS, measure

OF_VARIANTS = ("compile_loadable", "run_loadable", "score_variant", "verify_loadable")
"""Rules with jobs for each variant."""
MODELS, IMAGES, MANY = 100, 50_000, 12
"""The very large sweep: so many networks like this one, test images each, and variants."""


def seconds_of(found: Jobs) -> dict[str, float]:
    """Return the seconds of a core that the jobs of each rule took, as far as Snakemake's files have them."""
    return {rule: sum(max(float(line["s"]), _processor(line)) for line in lines) for rule, lines in found.items()}


def _processor(line: Mapping[str, str]) -> float:
    return 0.0 if line["cpu_time"] in ("-", "NA") else float(line["cpu_time"])


def line_through(small: tuple[int, float], large: tuple[int, float]) -> tuple[float, float]:
    """Return (constant, for each image) of what two runs cost."""
    slope = max((large[1] - small[1]) / (large[0] - small[0]), 0.0)
    return max(small[1] - slope * small[0], 0.0), slope


def main() -> None:
    """Measure, tell and print."""
    parser = argparse.ArgumentParser(description="What a sweep costs, told from two small ones.")
    parser.add_argument("--images", type=int, nargs=3, default=(100, 300, 1000), help="test images, ascending")
    small, large, judge = parser.parse_args().images
    runs = {count: measure(count, "2") for count in (small, large, judge)}
    seconds = {count: seconds_of(found) for count, (_, found, _) in runs.items()}
    lines = {
        rule: line_through((small, seconds[small][rule]), (large, seconds[large][rule])) for rule in seconds[small]
    }
    size = line_through((small, runs[small][2]), (large, runs[large][2]))
    print(", ".join(f"{count} images: {run[0]:.0f} s" for count, run in runs.items()))
    print(f"{'rule':24} constant  an image  told at {judge}  measured")
    for rule, (constant, slope) in sorted(lines.items(), key=lambda item: -seconds[judge][item[0]]):
        told = constant + slope * judge
        print(f"{rule:24} {constant:8.2f} {slope:9.5f} {told:12.1f} {seconds[judge][rule]:9.1f}")
    told, found = (sum(values) for values in ((a + b * judge for a, b in lines.values()), seconds[judge].values()))
    print(f"seconds of a core in all: told {told:.0f}, measured {found:.0f}, ratio {told / found:.2f}")
    told = size[0] + size[1] * judge
    print(f"bytes of results: told {told:.3g}, measured {runs[judge][2]:.3g}, ratio {told / runs[judge][2]:.2f}")
    factor = {rule: MANY / len(VARIANTS) if rule in OF_VARIANTS else 1.0 for rule in lines}
    one = sum(factor[rule] * (constant + slope * IMAGES) for rule, (constant, slope) in lines.items())
    print(
        f"{MODELS} such networks x {IMAGES} images x {MANY} variants: {MODELS * one / 86400:.1f} days of a core, "
        f"{MODELS * (size[0] + size[1] * IMAGES) * MANY / len(VARIANTS):.3g} bytes of results"
    )


if __name__ == "__main__":
    main()
