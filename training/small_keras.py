"""Train a small network by Keras on the 1,000 calibration images of Fashion-MNIST that ship, and export it as ONNX.

Usage, from the repository's root, in an environment with tensorflow (or tensorflow-cpu) and tf2onnx::

    python training/small_keras.py downloads/small.onnx           # tf2onnx
    python training/small_keras.py downloads/small.onnx --keras   # Keras 3's own model.export

Half a minute. The network is an example of what goes in, as docs/onnx.md shows it, not one to be used.
"""

import argparse
import gzip
import lzma
from pathlib import Path

import keras
import numpy as np
import tensorflow
import tf2onnx
from keras import Model, layers
from numpy.typing import NDArray

SEED = 20240
EPOCHS = 30
BATCH = 50
LEARNING_RATE = 0.003
OPSET = 17
DATA = Path(__file__).resolve().parents[1] / "resources" / "fashion-mnist"


def read() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return images, ``(n, 28, 28, 1)`` of 0 to 1, and labels."""
    pixels = np.frombuffer(
        lzma.decompress((DATA / "calibration-images-idx3-ubyte.xz").read_bytes()), np.uint8, offset=16
    )
    labels = np.frombuffer(
        gzip.decompress((DATA / "calibration-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8
    )
    return pixels.reshape(-1, 28, 28, 1).astype(np.float32) / np.float32(255), labels


def make() -> Model:
    """Three blocks, an average and ten classes."""
    image = features = keras.Input((28, 28, 1), name="image")
    for outputs in (16, 32, 64):
        features = layers.Conv2D(outputs, 3, padding="same", use_bias=False)(features)
        features = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(features))
        features = layers.MaxPooling2D(2)(features)
    features = layers.GlobalAveragePooling2D()(features)
    return Model(image, layers.Dense(10, activation="softmax", name="scores")(features))


def main() -> None:
    """Train and export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="the ONNX file")
    parser.add_argument("--keras", action="store_true", help="by model.export in place of tf2onnx")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(SEED)
    images, labels = read()
    model = make()
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, EPOCHS * len(images) // BATCH)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images, labels, BATCH, EPOCHS, verbose=2)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    path = str(arguments.output)
    if arguments.keras:
        model.export(path, format="onnx")
    else:
        image = tensorflow.TensorSpec((None, 28, 28, 1), tensorflow.float32, "image")
        tf2onnx.convert.from_keras(model, (image,), opset=OPSET, output_path=path)


if __name__ == "__main__":
    main()
