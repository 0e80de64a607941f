"""What onnxruntime computes from a quantized ONNX file as it is: the result that a loadable of it stands beside.

Nothing of ours is in between: the file goes to onnxruntime, which fuses the pairs into its int8 kernels where it has
some. The images are those that the network takes that was read from it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import NetworkError
from nvdla_quant.execution.fp32 import Images
from nvdla_quant.network.graph import Tensor

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


def run_file(
    path: Path,
    images: Images,
    reads: Tensor,
    cut_at: Sequence[str] = (),
    *,
    batch_size: int = 64,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Return the first output of a file for each image, flattened.

    Parameters
    ----------
    path : Path
        The file, with its external data beside it.
    images : Images
        In the network's own domain, after preprocessing.
    reads : Tensor
        Input of the network that was read from the file; where the file has channels last, it has them first.
    cut_at : Sequence[str], optional
        Values that the file is to end at, of which the first is the output then.
    batch_size : int
        Images computed at once, where the file leaves it open.
    threads : int
        Threads of onnxruntime.
    progress : callable, optional
        Called with images done and images in all.

    Raises
    ------
    NetworkError
        onnxruntime does not run the file, or its input is another one.
    """
    import onnxruntime

    from nvdla_quant.network.onnx.files.load import load

    content = load(path, cut_at).model.SerializeToString() if cut_at else str(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    # Processors without dot products of bytes would add pairs of products in 16 bits, and clip the sums.
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # Of several classes of its own, all below Exception.
        raise NetworkError(f"{path}: onnxruntime does not run it: {' '.join(str(error).split())[:400]}") from error
    (fed, *others) = session.get_inputs()
    kind = _TYPES.get(fed.type)
    if others or kind is None:
        raise NetworkError(f"{path}: {1 + len(others)} inputs, the first of type {fed.type}; expected one of floats")
    batch, *sizes = fed.shape
    last = _has_channels_last(sizes, reads.shape)
    count = batch if isinstance(batch, int) else batch_size
    results = []
    for start in range(0, len(images), count):
        part = images[start : start + count]
        values = part.reshape(len(part), *reads.shape)
        values = (values.transpose(0, 2, 3, 1) if last else values).astype(kind)
        short = count - len(part) if isinstance(batch, int) else 0
        padded = np.concatenate([values, np.repeat(values[-1:], short, axis=0)]) if short else values
        found = session.run([session.get_outputs()[0].name], {fed.name: np.ascontiguousarray(padded)})[0]
        results.append(np.asarray(found, np.float32).reshape(len(padded), -1)[: len(part)])
        if progress is not None:
            progress(start + len(part), len(images))
    return np.concatenate(results)


def _has_channels_last(sizes: list[int | str | None], shape: tuple[int, ...]) -> bool:
    """Whether a file's image has the network's channels last; open sizes fit any."""

    def fits(expected: tuple[int, ...]) -> bool:
        return len(sizes) == len(expected) and all(
            not isinstance(size, int) or size == number for size, number in zip(sizes, expected, strict=True)
        )

    return len(shape) == 3 and not fits(shape) and fits((*shape[1:], shape[0]))
