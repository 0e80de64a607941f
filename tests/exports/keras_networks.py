"""Export Keras networks by tf2onnx: their images are NHWC, and so is much of the graph.

Usage, from the repository's root, in an environment of its own (see tests/data/exports/README.md for the versions)::

    pip install tensorflow-cpu tf2onnx onnx onnxruntime
    python -m tests.exports.keras_networks FOLDER

writes ``FOLDER/<network>-<opset>-tf2onnx.onnx`` and compares each with Keras by onnxruntime.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import tensorflow
import tf2onnx
from keras import KerasTensor, Model, layers

SEED = 20251
CLASSES = 10
IMAGES = 64
SHIFT = (1.0, 0.5)
"""Mean and deviation of what BatchNorm adds; see `make`."""
TOLERANCE = 1e-4
"""Largest difference to Keras, in parts of the largest score."""


def normalised(source: KerasTensor, outputs: int, kernel: int, stride: int = 1) -> KerasTensor:
    """Convolution, BatchNorm and ReLU6."""
    result = layers.Conv2D(outputs, kernel, stride, "same", use_bias=False, kernel_initializer="he_normal")(source)
    return layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.0)(result))


def mobilenet() -> Model:
    """Pixels are scaled inside; padding is uneven where the stride is two, as TensorFlow's "same" has it."""
    inputs = keras.Input((32, 32, 3), name="pixels")
    features = normalised(layers.Rescaling(1 / 127.5, offset=-1.0)(inputs), 8, 3, 2)
    for outputs, stride in ((8, 1), (16, 2), (16, 1), (24, 2), (24, 1)):
        inner = normalised(features, 4 * features.shape[-1], 1)
        inner = layers.DepthwiseConv2D(3, stride, "same", use_bias=False, depthwise_initializer="he_normal")(inner)
        inner = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.0)(inner))
        inner = layers.Conv2D(outputs, 1, use_bias=False, kernel_initializer="he_normal")(inner)
        inner = layers.BatchNormalization(momentum=0.0)(inner)
        features = layers.Add()([features, inner]) if outputs == features.shape[-1] and stride == 1 else inner
    features = layers.GlobalAveragePooling2D()(normalised(features, 48, 1))
    return Model(inputs, layers.Dense(CLASSES, activation="softmax", name="scores")(features))


def flattened() -> Model:
    """Takes bytes; Concatenate, and a Flatten whose order is that of NHWC, before two fully connected layers."""
    inputs = keras.Input((32, 32, 3), dtype="uint8", name="bytes")
    features = layers.Rescaling(1 / 255)(inputs)
    features = layers.MaxPooling2D(2)(layers.Conv2D(8, 5, padding="same", activation="relu")(features))
    left = layers.Conv2D(8, 3, padding="same")(features)
    right = layers.AveragePooling2D(3, 1, "same")(layers.Conv2D(4, 1)(features))
    features = layers.LeakyReLU(negative_slope=0.2)(layers.Concatenate()([left, right]))
    features = layers.MaxPooling2D(3, 2, "same")(layers.ZeroPadding2D(((1, 0), (1, 0)))(features))
    features = layers.Conv2D(8, 3, 2)(features)
    features = layers.Dense(24, activation="relu")(layers.Flatten()(features))
    return Model(inputs, layers.Dense(CLASSES, activation="softmax", name="scores")(features))


def randomise(model: Model) -> None:
    """Draw what BatchNorm multiplies by and adds."""
    random = np.random.default_rng(SEED)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.gamma.assign(random.uniform(0.5, 1.5, layer.gamma.shape))
            layer.beta.assign(random.normal(*SHIFT, layer.beta.shape))


Recipe = tuple[Callable[[], Model], int]
NETWORKS: dict[str, Recipe] = {"keras-mobilenet": (mobilenet, 13), "keras-flat": (flattened, 17)}
"""Networks and the version of ONNX's operators that each is exported with."""


def main() -> None:
    """Export, compare, and say what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the files go")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, (make, opset) in NETWORKS.items():
        keras.utils.set_random_seed(SEED)
        model = make()
        (source,) = model.inputs
        pixels = np.random.default_rng(SEED).integers(0, 256, (IMAGES + 2, *source.shape[1:]))
        images = pixels.astype(source.dtype)
        randomise(model)
        model(images[:IMAGES], training=True)  # BatchNorm takes its statistics from these.
        path = folder / f"{name}-{opset}-tf2onnx.onnx"
        signature = (tensorflow.TensorSpec(source.shape, source.dtype, source.name),)
        tf2onnx.convert.from_keras(model, signature, opset=opset, output_path=str(path))
        expected = model(images[IMAGES:]).numpy()
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (got,) = session.run(None, {session.get_inputs()[0].name: images[IMAGES:]})
        error = float(np.abs(got - expected).max() / np.abs(expected).max())
        print(f"{path.name}: {path.stat().st_size:,} bytes, differs by {error:.1e}", flush=True)
        if not error < TOLERANCE:
            raise SystemExit(f"failed: {path.name}")


if __name__ == "__main__":
    main()
