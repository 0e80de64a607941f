"""Scores of an int8 .tflite file: ``python benchmarks/tflite_scores.py MODEL IMAGES.npy SCORES.npy``.

Needs numpy and ai-edge-litert, and nothing of this package, so that it runs in an environment of its own. IMAGES are
float32 (n, height, width, channels) in the network's domain.
"""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray


def main() -> None:
    """Run."""
    from ai_edge_litert.interpreter import Interpreter  # Here: `quantized` needs none.

    model, images, scores = sys.argv[1:]
    interpreter = Interpreter(model_path=model)
    interpreter.allocate_tensors()
    (reads,), (writes,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for image in quantized(np.load(images), reads["dtype"], *reads["quantization"]):
        interpreter.set_tensor(reads["index"], image[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(writes["index"]).ravel())
    np.save(scores, np.stack(found))


def quantized(images: NDArray[np.float32], kind: type, scale: float, zero: int) -> NDArray[Any]:
    """Return `images` as a file reads them: rounded, ties to even, and saturated, where it is quantized."""
    if not np.issubdtype(kind, np.integer):
        return images.astype(kind)
    bounds = np.iinfo(kind)
    steps: NDArray[Any] = np.clip(np.rint(images / scale) + zero, bounds.min, bounds.max).astype(kind)
    return steps


if __name__ == "__main__":
    main()
