"""Stands in for the module `tensorrt`: it asks its calibrator as the real one does, and computes next to nothing.

`FAKE_TENSORRT` is its version; from 9 on there is no Caffe parser, from 11 on no calibrator. The cache that it writes
has a line for each tensor of `FAKE_JOB`, whose scale is the mean of all that the calibrator put on the "GPU".
"""

import json
import os
import struct
from pathlib import Path

import numpy as np
from pycuda.driver import MEMORY

__version__ = os.environ.get("FAKE_TENSORRT", "8.5.3.1")
MAJOR = int(__version__.split(".")[0])
float32 = "float32"


class _Calibrator:
    algorithm = ""

    def __init__(self):
        self.initialized = True


if MAJOR < 11:

    class IInt8EntropyCalibrator2(_Calibrator):
        algorithm = "EntropyCalibration2"

    class IInt8EntropyCalibrator(_Calibrator):
        algorithm = "EntropyCalibration"

    class IInt8MinMaxCalibrator(_Calibrator):
        algorithm = "MinMaxCalibration"

    class IInt8LegacyCalibrator(_Calibrator):
        algorithm = "LegacyCalibration"


class Logger:
    INFO = 0

    def __init__(self, level):
        self.level = level


class MemoryPoolType:
    WORKSPACE = 0


class BuilderFlag:
    FP16, INT8, TF32 = "fp16", "int8", "tf32"


class NetworkDefinitionCreationFlag:
    EXPLICIT_BATCH = 0


class _Config:
    def __init__(self):
        self.flags, self.int8_calibrator, self.profile = {BuilderFlag.TF32}, None, None

    def set_memory_pool_limit(self, pool, size):
        assert (pool, size) == (MemoryPoolType.WORKSPACE, 1 << 30)

    def set_flag(self, flag):
        self.flags.add(flag)

    def clear_flag(self, flag):
        self.flags.remove(flag)

    def add_optimization_profile(self, profile):
        self.profile = profile

    def set_calibration_profile(self, profile):
        assert profile is self.profile


class _Profile:
    def set_shape(self, name, smallest, best, largest):
        assert smallest == best == largest
        self.name, self.shape = name, best


class _Network:
    def __init__(self, flags):
        self.flags, self.outputs = flags, []

    def mark_output(self, tensor):
        self.outputs.append(tensor)


class Builder:
    def __init__(self, logger):
        assert isinstance(logger, Logger)

    def create_network(self, flags=0):
        return _Network(flags)

    def create_builder_config(self):
        return _Config()

    def create_optimization_profile(self):
        return _Profile()

    def build_serialized_network(self, network, config):
        if "int8" in config.flags:
            _calibrate(config.int8_calibrator, network)
        return json.dumps(sorted(config.flags)).encode()


def _header(calibrator):
    """As 8.5.3.1 writes them: the legacy calibrator names itself by its numbers, as float64."""
    if calibrator.algorithm == "LegacyCalibration":
        numbers = (calibrator.get_regression_cutoff(), calibrator.get_quantile())
        return " ".join(["0", *(struct.pack(">d", number).hex() for number in numbers)])
    return "TRT-{}-{}".format("".join(__version__.split(".")[:3]), calibrator.algorithm)


def _calibrate(calibrator, network):
    """Ask in the order of the real one: the cache first, then batches until there are no more."""
    assert calibrator.initialized
    if calibrator.algorithm == "LegacyCalibration":
        assert 0 < calibrator.get_quantile() <= 1
        assert calibrator.get_regression_cutoff() == 1
    header = _header(calibrator)
    cached = calibrator.read_calibration_cache()
    if cached is not None:
        assert bytes(cached).decode().splitlines()[0] == header
        print("fake tensorrt: calibration cache taken")
        return
    total = []
    size = calibrator.get_batch_size()
    while True:
        found = calibrator.get_batch([network.input])
        if not found:
            break
        values = np.frombuffer(MEMORY[found[0]], np.float32).copy()
        assert len(values) % size == 0
        total.append(values)
    scale = struct.pack(">f", float(np.mean(np.concatenate(total), dtype=np.float64))).hex()
    text = "".join(f"{name}: {scale}\n" for name in network.names)
    calibrator.write_calibration_cache(memoryview((header + "\n" + text).encode()))


class _Context:
    def __init__(self, flags):
        self.flags = flags

    def set_input_shape(self, name, shape):
        self.shape = shape

    def execute(self, batch_size, bindings):
        images = np.frombuffer(MEMORY[bindings[0]], np.float32).reshape(batch_size, -1)
        classes = len(MEMORY[bindings[1]]) // (4 * batch_size)
        # The class is the number of pixels above the mean, modulo the classes: a function of the input alone.
        chosen = (images > images.mean(axis=1, keepdims=True)).sum(axis=1) % classes
        scores = np.eye(classes, dtype=np.float32)[chosen]
        MEMORY[bindings[1]][:] = scores.tobytes()
        return True

    def execute_v2(self, bindings):
        return self.execute(self.shape[0], bindings)


class _Engine:
    def __init__(self, plan):
        self.flags = json.loads(bytes(plan).decode())
        print("fake tensorrt: built with", " ".join(self.flags) or "nothing")

    def create_execution_context(self):
        return _Context(self.flags)


class Runtime:
    def __init__(self, logger):
        pass

    def deserialize_cuda_engine(self, plan):
        return _Engine(plan)


def _names():
    return json.loads(Path(os.environ["FAKE_JOB"]).read_text())["names"]


def _named(network, names, source):
    network.names, network.input = names, source


if MAJOR < 9:

    class _Tensors:
        def __init__(self, names):
            self.names = names

        def find(self, name):
            return name if name in self.names else None

    class CaffeParser:
        def parse(self, deploy, model, network, dtype):
            assert os.path.isfile(deploy)
            assert os.path.isfile(model)
            names = _names()
            _named(network, names, names[0])
            return _Tensors(names)


class OnnxParser:
    num_errors = 0

    def __init__(self, network, logger):
        self.network = network

    def parse(self, content):
        names = _names()
        # What the ONNX parser names by itself is in the cache too.
        _named(self.network, [*names, "ip1:flat", "(Unnamed Layer* 7) [Shuffle]_output"], names[0])
        return len(content) > 0
