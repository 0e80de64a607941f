"""TensorRT: calibrate a network, and run it in fp32, fp16 and int8; as a program of its own, ``python -m`` this module.

It runs where TensorRT is, which is seldom where the rest of this package is: in NVIDIA's container (Python 3.8) or in
an environment of Python 3.10. So this module and what it imports keep to Python 3.8, the standard library and numpy; a
test holds it to that. What needs to know the network is decided before, by `nvdla_quant.calibration.tensorrt_job`.

=========== =================== ===========================================================================
TensorRT    network             remark
=========== =================== ===========================================================================
7, 8        Caffe parser        from the original prototxt and caffemodel; implicit batch
7 to 10     ONNX parser         of an ONNX model: what it was read to, its tensors named as in the model
8.6 to 10   ONNX parser         where the Caffe parser is missing; our ONNX names its tensors as that would
11          none                calibrators are gone: refused
=========== =================== ===========================================================================
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nvdla_quant.calibration.device_memory import Buffer, allocate
from nvdla_quant.errors import ConfigError, NvdlaQuantError, ToolError

if TYPE_CHECKING:
    from numpy.typing import NDArray

CALIBRATORS = {
    "tensorrt-entropy": "IInt8EntropyCalibrator2",
    "tensorrt-entropy-1": "IInt8EntropyCalibrator",
    "tensorrt-minmax": "IInt8MinMaxCalibrator",
    "tensorrt-legacy": "IInt8LegacyCalibrator",
}
"""TensorRT's class for each method of the configuration."""

PRECISIONS = ("fp32", "fp16", "int8")

LAST_MAJOR = 10
"""Last version of TensorRT that calibrates."""

REGRESSION_CUTOFF = 1.0
"""Of the legacy calibrator: 1 leaves the choice to the quantile."""

_WORKSPACE = 1 << 30
"""Bytes of scratch memory; what the reference caches were made with changes no scale."""

_GET = (
    "install the environment envs/tensorrt-8.5.yaml or envs/tensorrt-8.5.txt (Python 3.10), or run snakemake with "
    "--sdm apptainer, and name another interpreter by backends.tensorrt.python"
)


def import_tensorrt() -> Any:
    """Return the module `tensorrt`.

    Raises
    ------
    ToolError
        It is missing, or a version without calibrators.
    """
    try:
        import tensorrt
    except ImportError as error:
        raise ToolError(f"tensorrt: {sys.executable} has no module tensorrt ({error}); {_GET}") from error
    version = str(tensorrt.__version__)
    if int(version.split(".")[0]) > LAST_MAJOR:
        raise ToolError(
            f"tensorrt: version {version} has no INT8 calibrators any more, only networks that are quantized already; "
            f"the last version that calibrates is {LAST_MAJOR}.x; {_GET}"
        )
    return tensorrt


# ---- images


class Images:
    """Images of the workflow, as the network's input: whole batches of float32 in C order.

    `labels` holds the class of each, or is None where a bundle has none, as those that calibrate may.

    Parameters
    ----------
    paths : Sequence[str]
        The workflow's ``.npz`` bundles, read one after the other.
    values : ndarray, shape (channels, 256)
        Network input for each pixel value.
    batch_size : int
        Images of a batch.
    """

    def __init__(self, paths: Sequence[str], values: NDArray[Any], batch_size: int) -> None:
        pixels, labels = [], []
        for path in paths:
            with np.load(path, allow_pickle=False) as bundle:
                pixels.append(bundle["pixels"])
                labels += [bundle["labels"]] if "labels" in bundle.files else []
        self.pixels = np.concatenate(pixels)
        self.labels = np.concatenate(labels) if len(labels) == len(pixels) else None
        self.values, self.batch_size = values.astype(np.float32), batch_size

    def batches(self) -> Iterator[tuple[NDArray[Any], int]]:
        """Yield each batch ``(batch_size, channels, h, w)`` and how many images it holds; the rest are zeros."""
        for first in range(0, len(self.pixels), self.batch_size):
            part = self.pixels[first : first + self.batch_size]
            batch = np.zeros((self.batch_size, *part.shape[1:]), np.float32)
            for channel, values in enumerate(self.values):
                batch[: len(part), channel] = values[part[:, channel]]
            yield batch, len(part)


# ---- calibration


def make_calibrator(
    trt: Any,
    method: str,
    images: Images | None,
    batch_size: int,
    cache: Path,
    quantile: float | None = None,
    allocate: Callable[[int], Buffer] = allocate,
) -> Any:
    """Return a calibrator, an object of TensorRT's class for `method`.

    Parameters
    ----------
    trt : module
        `tensorrt`.
    method : str
        One of `CALIBRATORS`.
    images : Images or None
        What it calibrates with; None where `cache` exists and must serve.
    batch_size : int
        Images of a batch.
    cache : Path
        The calibration cache: read once, before images are asked for; written once, whole.
    quantile : float, optional
        Of the legacy calibrator, 0 to 1.
    allocate : callable
        Where GPU memory comes from.

    Raises
    ------
    ConfigError
        The images are no whole number of batches.
    ToolError
        This version of TensorRT lacks the class.
    """
    base = getattr(trt, CALIBRATORS[method], None)
    if base is None:
        raise ToolError(f"tensorrt: version {trt.__version__} has no {CALIBRATORS[method]} ({method})")
    if images is not None and len(images.pixels) % batch_size:
        raise ConfigError(
            f"calibrators: {len(images.pixels)} images in batches of {batch_size}: TensorRT calibrates with whole "
            "batches; choose a multiple"
        )

    class Calibrator(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            base.__init__(self)  # type: ignore[misc]
            self._batches = iter(()) if images is None else images.batches()
            self._buffer: Buffer | None = None

        def get_batch_size(self) -> int:
            return batch_size

        def get_batch(self, names: list[str], *_: Any) -> list[int] | None:
            if len(names) != 1:
                raise ToolError("tensorrt: asks for the inputs {}, expected exactly one".format(", ".join(names)))
            batch = next(self._batches, None)
            if batch is None:
                return None
            array = np.ascontiguousarray(batch[0])
            if self._buffer is None:
                self._buffer = allocate(array.nbytes)
            self._buffer.upload(array)
            return [self._buffer.address]

        def read_calibration_cache(self, *_: Any) -> bytes | None:
            return cache.read_bytes() if cache.is_file() else None

        def write_calibration_cache(self, content: Any, *_: Any) -> None:
            write_whole(cache, bytes(content))

        def get_quantile(self) -> float:
            if quantile is None:
                raise ConfigError("calibrators: method tensorrt-legacy needs `percentile`")
            return quantile

        def get_regression_cutoff(self) -> float:
            return REGRESSION_CUTOFF

        def read_histogram_cache(self, *_: Any) -> None:
            return None

        def write_histogram_cache(self, *_: Any) -> None:
            return None

    return Calibrator()


def keep_named(content: bytes, names: Sequence[str]) -> bytes:
    """Return a cache with only the entries called `names`: the ONNX parser's own tensors are none of the network's."""
    known = set(names)
    lines = content.decode("utf-8").splitlines()
    kept = [line for line in lines[1:] if line.rpartition(": ")[0] in known]
    return ("\n".join(lines[:1] + kept) + "\n").encode("utf-8")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(content)
    os.replace(str(temporary), str(path))


# ---- engines


class Job:
    """What `nvdla_quant.calibration.tensorrt_job` laid ready; the ONNX model lies beside the JSON."""

    def __init__(self, path: Path) -> None:
        content = json.loads(path.read_text(encoding="utf-8"))
        self.input = str(content["input"])
        self.shape: tuple[int, ...] = tuple(content["shape"])
        self.output = str(content["output"])
        self.classes = int(content["classes"])
        self.names: list[str] = list(content["names"])
        self.values = np.array(content["values"], np.float32)
        self.onnx = path.with_name("model.onnx")


def has_caffe_parser(trt: Any) -> bool:
    """Tell whether this TensorRT reads Caffe's files."""
    return hasattr(trt, "CaffeParser")


class Engine:
    """A network that TensorRT built.

    Parameters
    ----------
    trt : module
        `tensorrt`.
    job : Job
        The network.
    caffe : (prototxt, caffemodel) or None
        Caffe's files, for versions that read them; None of an ONNX model.
    precision : str
        One of `PRECISIONS`.
    batch_size : int
        Images at once.
    calibrator : object, optional
        For int8.

    Raises
    ------
    ToolError
        TensorRT cannot start, parse or build; its own log, on standard error, says more.
    """

    def __init__(
        self,
        trt: Any,
        job: Job,
        caffe: tuple[str, str] | None,
        precision: str,
        batch_size: int,
        calibrator: Any = None,
    ) -> None:
        self._trt, self._job, self._batch_size = trt, job, batch_size
        self._caffe = caffe if has_caffe_parser(trt) else None
        self._logger = trt.Logger(trt.Logger.INFO)
        builder = trt.Builder(self._logger)
        if not builder:
            raise ToolError("tensorrt: no builder; is a GPU visible here that this version of TensorRT supports?")
        network, self._parser = self._parse(builder)
        config = builder.create_builder_config()
        if hasattr(config, "set_memory_pool_limit"):
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE)
        else:
            config.max_workspace_size = _WORKSPACE
        _without_external_libraries(trt, config)
        if self._caffe:
            builder.max_batch_size = batch_size
        else:
            profile = builder.create_optimization_profile()
            whole = (batch_size, *job.shape)
            profile.set_shape(job.input, whole, whole, whole)
            config.add_optimization_profile(profile)
            if precision == "int8":
                config.set_calibration_profile(profile)
        if precision == "fp32" and hasattr(trt.BuilderFlag, "TF32"):
            # On by default since 7.1, and 10 bits of mantissa are not fp32. Calibration keeps TensorRT's default, which
            # the reference caches were made with.
            config.clear_flag(trt.BuilderFlag.TF32)
        elif precision == "fp16":
            config.set_flag(trt.BuilderFlag.FP16)
        elif precision == "int8":
            config.set_flag(trt.BuilderFlag.INT8)
            config.int8_calibrator = calibrator
        self._runtime = trt.Runtime(self._logger)
        if hasattr(builder, "build_serialized_network"):
            plan = builder.build_serialized_network(network, config)
            self._engine: Any = self._runtime.deserialize_cuda_engine(plan) if plan else None
        else:
            self._engine = builder.build_engine(network, config)
        if not self._engine:
            raise ToolError(f"tensorrt: the {precision} engine was not built; TensorRT's messages above say why")

    @property
    def reads_caffe(self) -> bool:
        """Return whether the Caffe parser read the network, and not the ONNX parser."""
        return self._caffe is not None

    def _parse(self, builder: Any) -> tuple[Any, Any]:
        trt = self._trt
        if self._caffe:
            prototxt, caffemodel = self._caffe
            network, parser = builder.create_network(), trt.CaffeParser()
            tensors = parser.parse(deploy=prototxt, model=caffemodel, network=network, dtype=trt.float32)
            output = tensors.find(self._job.output) if tensors else None
            if not output:
                raise ToolError(f"tensorrt: its Caffe parser does not take {prototxt}; see its messages above")
            network.mark_output(output)
            return network, parser
        flag = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
        # From 10 on every network has an explicit batch, and the flag may be gone.
        network = builder.create_network(0 if flag is None else 1 << int(flag))
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse(self._job.onnx.read_bytes()):
            said = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
            raise ToolError(f"tensorrt: its ONNX parser does not take {self._job.onnx}: {said}")
        return network, parser

    def run(self, images: Images, progress: Callable[[int], None]) -> NDArray[Any]:
        """Return the scores ``(n, classes)`` of all images."""
        context = self._engine.create_execution_context()
        size = self._batch_size
        inputs = allocate(4 * size * int(np.prod(self._job.shape)))
        outputs = allocate(4 * size * self._job.classes)
        if not self._caffe:
            whole = (size, *self._job.shape)
            if hasattr(context, "set_input_shape"):
                context.set_input_shape(self._job.input, whole)
            else:
                context.set_binding_shape(0, whole)
        scores, bindings = [], [inputs.address, outputs.address]
        for batch, count in images.batches():
            inputs.upload(np.ascontiguousarray(batch))
            done = context.execute(size, bindings) if self._caffe else context.execute_v2(bindings)
            if not done:
                raise ToolError("tensorrt: running the engine failed; see its messages above")
            result = np.empty((size, self._job.classes), np.float32)
            outputs.download(result)
            scores.append(result[:count])
            progress(sum(map(len, scores)))
        return np.concatenate(scores)


def _without_external_libraries(trt: Any, config: Any) -> None:
    """Build without cuDNN and cuBLAS, which the wheels do not bring along (measured: 8.5 calibrates without them)."""
    if not hasattr(config, "set_tactic_sources") or not hasattr(trt, "TacticSource"):
        return
    external = {"CUBLAS", "CUBLAS_LT", "CUDNN"}
    known = dict(trt.TacticSource.__members__)
    config.set_tactic_sources(sum(1 << int(value) for name, value in known.items() if name not in external))
    flag = getattr(getattr(trt, "PreviewFeature", None), "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805", None)
    if flag is not None:
        config.set_preview_feature(flag, True)


# ---- the program


def caffe_files(options: argparse.Namespace) -> tuple[str, str] | None:
    """Return Caffe's files; None where neither is given, since the network is an ONNX model."""
    given = options.prototxt, options.caffemodel
    if (given[0] is None) != (given[1] is None):
        raise ConfigError("tensorrt: one of --prototxt and --caffemodel is missing; give both, or neither")
    return None if given[0] is None else given


def method_of_tensorrt(name: str) -> str:
    """Return `name`, if it is a method of TensorRT; `mse`, `cosine` and others are known to the CPU alone."""
    if name not in CALIBRATORS:
        raise argparse.ArgumentTypeError(
            "TensorRT has no calibrator {!r}, but {}; the others calibrate on the CPU: `nvdla-quant calibrate`, or a "
            "calibrator of that method in the configuration".format(name, ", ".join(sorted(CALIBRATORS)))
        )
    return name


def calibrate(options: argparse.Namespace) -> None:
    """Write the calibration cache."""
    trt, job = import_tensorrt(), Job(Path(options.job))
    images = Images([options.calibration], job.values, options.batch_size)
    cache = Path(options.cache)
    raw = cache.with_name(cache.name + ".tensorrt")
    calibrator = make_calibrator(trt, options.method, images, options.batch_size, raw, options.quantile)
    if raw.is_file():
        raw.unlink()  # Of a run that was killed, perhaps with other images.
    print(f"TensorRT {trt.__version__}: {options.method} with {len(images.pixels)} images", flush=True)
    engine = Engine(trt, job, caffe_files(options), "int8", options.batch_size, calibrator)
    if not raw.is_file():
        raise ToolError("tensorrt: built an int8 engine without writing a calibration cache; see its messages above")
    content = raw.read_bytes()
    write_whole(cache, content if engine.reads_caffe else keep_named(content, job.names))
    raw.unlink()


def run(options: argparse.Namespace) -> None:
    """Write the scores of the test images."""
    trt, job = import_tensorrt(), Job(Path(options.job))
    images = Images(options.images, job.values, options.batch_size)
    if images.labels is None:
        raise ToolError("tensorrt: test images without labels, expected the class of each; see the data set's source")
    calibrator = None
    if options.precision == "int8":
        calibrator = make_calibrator(
            trt, options.method, None, options.batch_size, Path(options.cache), options.quantile
        )
    engine = Engine(trt, job, caffe_files(options), options.precision, options.batch_size, calibrator)
    total = len(images.pixels)
    scores = engine.run(images, lambda done: print(f"{done} of {total} images", flush=True))
    said = "TensorRT {}, {}".format(trt.__version__, "Caffe parser" if engine.reads_caffe else "ONNX parser")
    arrays: dict[str, NDArray[Any]] = {"scores": scores, "labels": images.labels, "exactness": np.array([said])}
    path = Path(options.scores)
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    os.replace(str(temporary), str(path))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; 2 is bad input, with one line that says what to do."""
    parser = argparse.ArgumentParser(prog="python -m nvdla_quant.calibration.tensorrt", description=calibrate.__doc__)
    commands = parser.add_subparsers(dest="command")
    for name, action in (("calibrate", calibrate), ("run", run)):
        command = commands.add_parser(name, help=action.__doc__)
        command.set_defaults(action=action)
        command.add_argument("--job", required=True)
        command.add_argument("--prototxt")
        command.add_argument("--caffemodel")
        command.add_argument("--batch-size", type=int, required=True)
        command.add_argument("--method", type=method_of_tensorrt, default="tensorrt-entropy")
        command.add_argument("--quantile", type=float)
        command.add_argument("--cache")
        if name == "calibrate":
            command.add_argument("--calibration", required=True)
        else:
            command.add_argument("--precision", choices=PRECISIONS, required=True)
            command.add_argument("--scores", required=True)
            command.add_argument("--images", nargs="+", required=True)
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.error("a command is missing: calibrate or run")
    try:
        options.action(options)
    except NvdlaQuantError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
