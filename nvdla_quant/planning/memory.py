"""Memory that the job of each rule asks for, a function of the sizes of what it reads.

A cluster ends a job that takes more than it asked for, and lets nothing else have what it asked for. So a job asks for
the most that one like it was measured to have (`NEEDS`), a quarter more, and room for the snakemake that runs it on a
node; where it is tried again, for twice as much each time. ``python -m benchmarks.memory`` holds every rule that runs
without a GPU or a device to its measured peak.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol

from nvdla_quant.configuration.parameters.job import Job
from nvdla_quant.configuration.parameters.names import Wildcards
from nvdla_quant.configuration.sources import located
from nvdla_quant.planning.sizes import NetworkSize, images_in, network_size, unpacked_bytes

MARGIN = 1.25
"""Between the measured peak and what is asked: libraries and allocators differ a little from machine to machine."""
SNAKEMAKE = 200
"""MB of the snakemake that a cluster starts on a node to run one job there: 140 measured, more for a large sweep."""
FLOAT = 4
"""Bytes of a value of a tensor."""
MEGABYTE = 10**6
HELD = 800 << 20
"""Bytes of tensors that a refinement of weights holds at most, as `quantization.refine.ROOM`."""


@dataclass(frozen=True)
class Need:
    """The most memory of a rule's jobs: megabytes of any, and how often each kind of bytes is in memory at a time.

    Attributes
    ----------
    base : int
        Megabytes of a job on the smallest network: Python with numpy (40), onnxruntime (40), compiled kernels (140).
    network : float
        Of the files of the network that the job reads; of an ONNX file, whose weights may be int8, of these in float32.
    image : float
        Of all tensors of one image in float32, for each thread.
    arrays : float
        Of the arrays in the ``.npz`` files that it reads.
    pixels : float
        Of the images that it chooses.
    files : float
        Of all other files that it reads.
    largest : float
        Of the largest of these, where it reads one after the other.
    each : float
        Megabytes of each file that it reads, however large.
    held : float
        Of all tensors of all calibration images in float32, up to `HELD`.
    """

    base: int
    network: float = 0
    image: float = 0
    arrays: float = 0
    pixels: float = 0
    files: float = 0
    largest: float = 0
    each: float = 0
    held: float = 0


NEEDS = {
    # Streamed, whatever the size of the file.
    "download_file": Need(60),
    "take_member": Need(60),
    "take_folder": Need(60, each=1),
    "select_calibration_images": Need(65, network=3, pixels=1.5, files=3),
    "select_test_images": Need(65, network=3, pixels=1.5, files=3),
    # A quantized file has one byte for a weight, and what is read from it four.
    "import_network": Need(130, network=14),
    "take_scales": Need(130, network=14),
    "cut_network": Need(60, network=5.5),
    "prepare_network": Need(60, network=5.5),
    "prepare_onnx_network": Need(65, network=3),
    "convert_network": Need(70, network=5.5),
    "check_support": Need(60, network=3.5),
    # onnxruntime has the weights in the model, as it was given them, and as it multiplies them.
    "compute_reference": Need(200, network=5, image=1.5, arrays=1.3),
    # All images of its calibrators, through the network as it was and as it becomes.
    "equalize_network": Need(150, network=10, image=1.5, arrays=1.3),
    "run_quantized": Need(150, network=4, image=1.5, arrays=1.3),
    "calibrate": Need(260, network=5, image=1.5, arrays=1.3),
    "convert_cache": Need(45, files=20),
    "fix_table": Need(65, network=3.5, files=20),
    "refine_weights": Need(280, network=8, image=4, arrays=3, held=1),
    "search_scales": Need(270, network=8, image=3, arrays=3),
    "compile_loadable": Need(80, network=5.5),
    "run_loadable": Need(280, image=1.5, arrays=5, files=6),
    "estimate_costs": Need(50, largest=2),
    "write_raw_dumps": Need(45, arrays=3),
    "verify_loadable": Need(310, network=5, image=9, arrays=1.5, files=3),
    "score_reference": Need(70, arrays=4),
    "score_quantized": Need(75, arrays=4),
    "score_tensorrt": Need(75, arrays=4),
    "score_variant": Need(80, network=3, arrays=4),
    "compare_case": Need(70, arrays=3, files=20),
    "score_fidelity": Need(115, network=3, arrays=2.6),
    # A command gets all outputs at once, and may need as much itself.
    "number_reference": Need(60, arrays=6),
    "number_variant": Need(80, network=3, arrays=8),
    "compare_fidelities": Need(115, arrays=4, files=20),
    "summarize_fidelity": Need(100, files=20, each=0.05),
    "plot_fidelity": Need(280, files=20, each=0.05),
    "summarize_sweep": Need(100, files=20, each=0.05),
    "plot_figures": Need(280, files=20, each=0.05),
    "write_report": Need(250, files=20, each=0.05),
    "write_manifest": Need(60, each=0.02),
    "prepare_tensorrt": Need(130, network=8),
    # Not measured by the benchmark: programs of others.
    "calibrate_with_tensorrt": Need(6000, network=10, arrays=5),
    "run_tensorrt": Need(6000, network=10, arrays=5),
    "compile_with_nvdla_compiler": Need(3000, network=20),
    "run_on_device": Need(1500, arrays=5, files=6),
}
"""By rule, measured by ``python -m benchmarks.memory`` on LeNet (base), ResNet-20 and ResNet-18 (the multiples)."""


class Inputs(Protocol):
    """Input files of a job, as Snakemake gives them: by name, one path or several."""

    def items(self) -> Iterable[tuple[str, str | list[str]]]:
        """Return names and paths."""


@dataclass(frozen=True)
class Sizes:
    """Bytes of what a job reads and works on, of each kind that `Need` has a multiple of, and how many files."""

    network: int = 0
    image: int = 0
    arrays: int = 0
    pixels: int = 0
    files: int = 0
    largest: int = 0
    held: int = 0
    count: int = 0


def megabytes(need: Need, sizes: Sizes, threads: int = 1, attempt: int = 1) -> int:
    """Return the megabytes that a job asks for, in steps of ten."""
    multiples = (
        need.network * sizes.network
        + need.image * sizes.image * threads
        + need.arrays * sizes.arrays
        + need.pixels * sizes.pixels
        + need.files * sizes.files
        + need.largest * sizes.largest
        + need.held * sizes.held
    )
    peak = need.base + need.each * sizes.count + multiples / MEGABYTE
    return ceil((SNAKEMAKE + MARGIN * peak) / 10) * 10 << (attempt - 1)


@dataclass(frozen=True)
class Memory:
    """Functions that rules have for ``mem_mb``."""

    job: Job

    def of(self, rule: str) -> Callable[[Wildcards, Inputs, int, int], int]:
        """Return the function of a rule; Snakemake says "TBD" of a job whose input is yet to be made."""
        need = NEEDS[rule]

        def mem_mb(wildcards: Wildcards, input: Inputs, attempt: int, threads: int) -> int:
            return megabytes(need, self.sizes(need, wildcards, input), threads, attempt)

        return mem_mb

    def sizes(self, need: Need, wildcards: Wildcards, given: Inputs) -> Sizes:
        """Return the sizes that a need asks about.

        Raises
        ------
        FileNotFoundError
            An input is not there; the error names it.
        """
        found = dict.fromkeys(("network", "arrays", "files"), 0)
        count = largest = 0
        inputs = {name: [paths] if isinstance(paths, str) else list(paths) for name, paths in given.items()}
        for name, paths in inputs.items():
            for path in paths:
                count += 1
                size = unpacked_bytes(path) if path.endswith(".npz") else os.stat(path).st_size
                if name in ("network", "prepared") and path.endswith(".onnx"):
                    size = max(size, FLOAT * self._network(wildcards).weights)
                kind = _kind(name, path)
                found[kind] += size
                largest = max(largest, size) if kind == "files" else largest
        image = FLOAT * self._network(wildcards).tensors if need.image else 0
        held = (
            min(2 * FLOAT * self._network(wildcards).tensors * int(self.job.calibrator(wildcards)["images"]), HELD)
            if need.held
            else 0
        )
        pixels = self._pixels(wildcards, inputs["files"]) if need.pixels else 0
        return Sizes(image=image, held=held, pixels=pixels, largest=largest, count=count, **found)

    def _network(self, wildcards: Wildcards) -> NetworkSize:
        return network_size(self.job.size(wildcards))

    def _pixels(self, wildcards: Wildcards, files: Sequence[str]) -> int:
        """Return the bytes of the images that a job chooses, for calibration or for a shard of the test."""
        of_one = self._network(wildcards).inputs
        if hasattr(wildcards, "calibrator"):
            return of_one * int(self.job.calibrator(wildcards)["images"])
        dataset: Mapping[str, Any] = self.job.dataset(wildcards)
        count: int = dataset.get("test_images") or images_in(located(dataset["source"], files))
        return of_one * ceil(count / len(self.job.configuration.shards))


def _kind(name: str, path: str) -> str:
    """Return which bytes of `Sizes` an input is, by its name in the rule."""
    if name in ("network", "prepared", "model"):
        return "network"
    # What a data set is read from is no array of ours.
    return "arrays" if path.endswith(".npz") and name != "files" else "files"
