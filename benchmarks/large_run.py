"""A whole sweep of an ImageNet-size network: ResNet-18 at 224 x 224, 1,000 test images, six variants for nv_full.

usage: python -m benchmarks.large_run [CORES] [--images N]

Weights and images are random, which costs what real ones do. Prints the time of the run beside the bar of four minutes,
and of each rule its jobs, their seconds and their largest memory (Snakemake's own measure) beside the bar of 2 GiB.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml

from benchmarks.default_run import CHECKOUT, Jobs, jobs, workflow
from nvdla_quant.network.files import write_model
from tests.networks.residual import resnet18

SECONDS, MIB = 240, 2048
"""Bars of the run and of the memory of a job."""
CALIBRATION_IMAGES = 128
SWEPT = (
    *((mode, method) for method in ("entropy", "minmax") for mode in ("per-kernel", "per-filter")),
    ("per-filter", "percentile"),
)
"""Quantization modes and calibrators of the int8 variants."""
VARIANTS = (
    {"precision": "fp16"},
    *({"precision": "int8", "mode": mode, "calibrator": calibrator} for mode, calibrator in SWEPT),
)


def configuration(folder: Path) -> dict[str, object]:
    """Return the sweep over the network and the images in `folder`."""
    methods = {"entropy": {}, "minmax": {}, "percentile": {"percentile": 99.99}}
    return {
        "models": {
            "resnet18": {
                "prototxt": str(folder / "net.prototxt"),
                "caffemodel": str(folder / "net.caffemodel"),
                "preprocessing": {"channels": "bgr", "mean": [127.5], "scale": 0.0078125},
            }
        },
        "datasets": {
            "noise": {
                "source": {"format": "npz", "path": str(folder / "images.npz")},
                "calibration_pool": CALIBRATION_IMAGES,
            }
        },
        "cases": [{"model": "resnet18", "dataset": "noise"}],
        "calibrators": {
            name: {"method": name, "images": CALIBRATION_IMAGES, "batch_size": 64, "seed": 0, **more}
            for name, more in methods.items()
        },
        "targets": ["nv_full"],
        "variants": list(VARIANTS),
    }


def measure(images: int, cores: str) -> tuple[float, Jobs, int]:
    """Run the sweep over so many test images; return its seconds, its jobs by rule, and the bytes of its results."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_model(resnet18(), (folder / "net.prototxt", folder / "net.caffemodel"))
        count = images + CALIBRATION_IMAGES
        coarse = random.integers(0, 256, (count, 14, 14, 3), np.uint8).repeat(16, 1).repeat(16, 2)
        np.savez(folder / "images.npz", images=coarse, labels=random.integers(0, 1000, count))
        (folder / "large.yaml").write_text(yaml.safe_dump(configuration(folder)))
        seconds = workflow(folder, cores, "--snakefile", str(CHECKOUT / "Snakefile"), "--configfile", "large.yaml")
        size = sum(path.stat().st_size for path in (folder / "results").rglob("*") if path.is_file())
        return seconds, jobs(folder), size


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description="Time and memory of a sweep of an ImageNet-size network.")
    parser.add_argument("cores", nargs="?", default="2")
    parser.add_argument("--images", type=int, default=1000, help="test images")
    options = parser.parse_args()
    seconds, found, _ = measure(options.images, options.cores)
    print(f"{options.images} images x 6 variants on {options.cores} cores: {seconds:.0f} s, bar {SECONDS}")
    print(f"{'rule':24} jobs  seconds  largest MiB (bar {MIB})")
    for rule, lines in sorted(found.items(), key=lambda item: -sum(float(line["s"]) for line in item[1])):
        memory = max(0.0 if line["max_rss"] in ("-", "NA") else float(line["max_rss"]) for line in lines)
        print(f"{rule:24} {len(lines):4} {sum(float(line['s']) for line in lines):8.1f} {memory:8.0f}")
    sys.exit(seconds > SECONDS)


if __name__ == "__main__":
    main()
