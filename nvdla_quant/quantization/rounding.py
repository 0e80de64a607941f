"""Adaptive rounding: for each weight the step below or above it, whichever serves the layer's outputs.

Rounding to the nearest step is best for each weight and not for their sum. Nagel et al., "Up or Down? Adaptive Rounding
for Post-Training Quantization" (arXiv:2004.10568), choose, layer by layer, among the two steps next to each weight the
ones with the least squared error of the layer's outputs (their equation 13, and with the inputs that the quantized
layers before it give, as in their section 4.2)::

    min over q of  sum over samples of (y - s q x - b)**2,   q[i] = floor(w[i] / s) or floor(w[i] / s) + 1

This is a quadratic in binary variables, in which samples appear in two sums alone, H = sum of x x' and
c = sum of (y - b) x. The paper relaxes it and descends along gradients with a learning rate, a schedule and random
batches. Here weights are flipped one at a time, as long as one flip lowers the sum: flipping q[i] by d changes it by
``s**2 (d * 2 (H q - c / s)[i] + H[i, i])``. It needs no such choices, gives the same bytes each time, and ends with a
sum that is not above that of rounding to the nearest, where it begins.

With few samples H is nearly singular, so a hundredth of its mean diagonal is added to it, which pulls towards the
weights as they are; Frantar et al., "GPTQ" (arXiv:2210.17323), section 3.3, do the same with the same matrix.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.emulator._jit import jit
from nvdla_quant.network.graph import Convolution, InnerProduct

SAMPLES = 32768
"""Places of a layer's output whose inputs are looked at, at most; more changed nothing on ResNet-20."""

ROWS = 1024
"""Samples that are taken in at once: it bounds the memory."""

DAMPING = 0.01
"""Share of the mean diagonal that is added to the diagonal."""

PASSES = 50
"""Times that all weights are looked at, at most; ResNet-20's layers take 3 to 8."""

LOWEST, HIGHEST = -127, 127
"""Steps of a weight: NVDLA has -128 too, which no symmetric range needs."""

Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over samples that the error of a layer's outputs follows from.

    Attributes
    ----------
    squares : Doubles
        (groups, inputs, inputs): sum of x x', where inputs are those of one output, taps included.
    products : Doubles
        (groups, outputs / group, inputs): sum of y x', y without its bias.
    count : int
        Samples.
    """

    squares: Doubles
    products: Doubles
    count: int


def moments(
    operation: Convolution | InnerProduct,
    inputs: NDArray[np.float32],
    outputs: NDArray[np.float32],
    *,
    centred: bool,
    seed: int = 0,
) -> Moments:
    """Return the sums over places of the outputs, `SAMPLES` of them chosen at random where there are more.

    Parameters
    ----------
    operation : Convolution or InnerProduct
        Its shape counts, and its bias.
    inputs : NDArray
        (n, channels, height, width) or (n, features): what the quantized network gives the layer.
    outputs : NDArray
        (n, outputs, height, width) or (n, outputs): what it should give, before any activation.
    centred : bool
        Whether means are taken out first: where the bias is corrected afterwards, they are of no matter.
    seed : int
        Of the choice.
    """
    group = operation.group if isinstance(operation, Convolution) else 1
    size = operation.weights[0].size
    squares = np.zeros((group, size, size))
    products = np.zeros((group, len(operation.weights) // group, size))
    means_x, means_y = np.zeros((group, size)), np.zeros((group, len(operation.weights) // group))
    bias = np.zeros(len(operation.weights), np.float32) if operation.bias is None else operation.bias
    count = 0
    for x, y in _samples(operation, inputs, outputs, seed):
        # (rows, groups, values) as (groups, rows, values).
        given = x.reshape(len(x), group, size).transpose(1, 0, 2)
        wanted = (y - bias).reshape(len(y), group, -1).transpose(1, 0, 2)
        squares += given.transpose(0, 2, 1) @ given
        products += wanted.transpose(0, 2, 1) @ given
        means_x += given.sum(axis=1, dtype=np.float64)
        means_y += wanted.sum(axis=1, dtype=np.float64)
        count += len(x)
    if centred:
        squares -= means_x[:, :, np.newaxis] * means_x[:, np.newaxis, :] / count
        products -= means_y[:, :, np.newaxis] * means_x[:, np.newaxis, :] / count
    return Moments(squares, products, count)


def _samples(
    operation: Convolution | InnerProduct, inputs: NDArray[np.float32], outputs: NDArray[np.float32], seed: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Yield (rows, inputs of all groups) and (rows, outputs), a few rows at a time."""
    wanted = outputs.reshape(len(outputs), -1, 1, 1) if outputs.ndim == 2 else outputs
    count, (height, width) = len(inputs), wanted.shape[2:]
    places = np.arange(count * height * width)
    if len(places) > SAMPLES:
        places = np.sort(np.random.default_rng(seed).choice(places, SAMPLES, replace=False))
    for start in range(0, len(places), ROWS):
        image, row, column = np.unravel_index(places[start : start + ROWS], (count, height, width))
        # Only of these images are the windows padded.
        first, last = image[0], image[-1] + 1
        windows = _windows(operation, inputs[first:last])
        yield windows[image - first, row, column].reshape(len(image), -1), wanted[image, :, row, column]


def _windows(operation: Convolution | InnerProduct, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a view of what each place of the output reads: (n, height, width, channels, kernel height and width)."""
    if isinstance(operation, InnerProduct):
        return inputs.reshape(len(inputs), 1, 1, -1, 1, 1)
    down, across = operation.sides
    padded = np.pad(inputs, ((0, 0), (0, 0), down, across))
    reach = [(k - 1) * d + 1 for k, d in zip(operation.weights.shape[2:], operation.dilation, strict=True)]
    views = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(2, 3))
    (vertical, horizontal), (rows, columns) = operation.stride, operation.dilation
    return views[:, :, ::vertical, ::horizontal, ::rows, ::columns].transpose(0, 2, 3, 1, 4, 5)


def nearest_steps(weights: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.int8]:
    """Return the step next to each weight, half up, as the compiler rounds; weights are (outputs, ...)."""
    each = scales.reshape(-1, *[1] * (weights.ndim - 1)).astype(np.float64)
    return np.clip(np.floor(weights / each + 0.5), LOWEST, HIGHEST).astype(np.int8)


def round_weights(
    weights: NDArray[np.float32], scales: NDArray[np.float32], sums: Moments
) -> tuple[NDArray[np.int8], int]:
    """Return the steps of a layer's weights with the least error of its outputs that flips find.

    Parameters
    ----------
    weights : NDArray
        (outputs, ...), as the layer has them.
    scales : NDArray
        (outputs,), real value of a step.
    sums : Moments
        Of the layer.

    Returns
    -------
    NDArray[int8]
        In the shape of `weights`.
    int
        How many differ from the nearest step.
    """
    group, _, size = sums.products.shape
    exact = (weights.reshape(len(weights), -1) / scales[:, np.newaxis].astype(np.float64)).reshape(group, -1, size)
    nearest = np.clip(np.floor(exact + 0.5), LOWEST, HIGHEST)
    steps = nearest.copy()
    for index in range(group):
        squares = sums.squares[index].copy()
        damping = DAMPING * float(np.diagonal(squares).mean())
        np.einsum("ii->i", squares)[:] += damping
        wanted = sums.products[index] / scales.reshape(group, -1)[index][:, np.newaxis] + damping * exact[index]
        below = np.clip(np.floor(exact[index]), LOWEST, HIGHEST)
        above = np.clip(np.floor(exact[index]) + 1, LOWEST, HIGHEST)
        _flip(steps[index], below, above, squares, steps[index] @ squares - wanted, PASSES)
    flipped = int((steps != nearest).sum())
    return steps.astype(np.int8).reshape(weights.shape), flipped


@jit
def _flip(steps: Doubles, below: Doubles, above: Doubles, squares: Doubles, slopes: Doubles, passes: int) -> None:
    """Flip `steps` of each row between `below` and `above` while one flip lowers ``q H q' - 2 q c``, in place.

    `slopes` is ``q H - c`` on entry, and is kept so.
    """
    rows, size = steps.shape
    for row in range(rows):
        for _ in range(passes):
            moved = False
            for i in range(size):
                other = above[row, i] if steps[row, i] == below[row, i] else below[row, i]
                d = other - steps[row, i]
                # A flip by less than rounding errors would go back and forth.
                if d * (2 * slopes[row, i] + d * squares[i, i]) < -1e-9 * squares[i, i]:
                    steps[row, i] = other
                    moved = True
                    for j in range(size):
                        slopes[row, j] += d * squares[i, j]
            if not moved:
                break
