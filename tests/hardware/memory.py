"""Numbers of layouts.md, weights.md and buffer.md."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.compiler.emission.pack import pack_image_weights, pack_weights
from nvdla_quant.compiler.lowering.layout import feature_surface, image_surface
from nvdla_quant.compiler.lowering.tile import post_extension
from nvdla_quant.emulator.operations import (
    ConvOperation,
    Cube,
)
from nvdla_quant.emulator.pixels import PIXELS
from nvdla_quant.emulator.weights import decompress
from nvdla_quant.hardware.cbuf import Shortage, Work, divide, feature_entries, image_entries, weight_banks
from nvdla_quant.hardware.targets import NV_FULL, NV_LARGE, NV_SMALL, Precision
from nvdla_quant.loadable.tasks import Window
from nvdla_quant.network.graph import (
    Tensor,
)
from tests.hardware.examples import example, joined, table


@example
def cube_addresses() -> str:
    lines = []
    for target in (NV_FULL, NV_SMALL):
        surface = feature_surface((40, 6, 5), target, 1)
        n = target.feature_atom_bytes
        lines.append(
            f"{target.name}: line stride {surface.line_stride}, surface stride {surface.surface_stride}, "
            f"{surface.surfaces} surfaces, {surface.size} bytes"
        )
        for c, y, x in ((0, 0, 0), (1, 0, 0), (0, 0, 1), (0, 1, 0), (39, 5, 4)):
            place = c // n * surface.surface_stride + y * surface.line_stride + x * n + c % n
            lines.append(f"    (c {c:2}, y {y}, x {x}) at byte {place}")
    return "\n".join(lines)


@example
def image_strides() -> str:
    rows = []
    for width, height in ((28, 28), (224, 224), (227, 227), (30, 30)):
        made = [image_surface(Tensor("data", (3, height, width), "data"), NV_FULL, size) for size in (1, 2)]
        rows.append((f"{width} x {height}", *(value for s in made for value in (s.line_stride, s.size))))
    return table(("pixels", "int8 line", "int8 bytes", "fp16 line", "fp16 bytes"), rows)


@example
def image_formats() -> str:
    rows = []
    for number, pixels in PIXELS.items():
        sizes = " + ".join(map(str, pixels.plane_bytes))
        places = joined(
            f"{c.plane}:{c.byte}" if c.bytes < 4 else f"bits {c.shift}-{c.shift + c.bits - 1}"
            for c in pixels.components
        )
        rows.append((number, pixels.name, pixels.precision, sizes, places))
    return table(("number", "name", "precision", "bytes a pixel", "where R G B A (Y U V A) stand, plane:byte"), rows)


def order(pack: Callable[[NDArray[np.int8]], bytes], shape: tuple[int, ...], count: int) -> list[tuple[int, ...]]:
    """Return the coordinates of the elements of a packed stream, found by packing each coordinate."""
    found = []
    for axis in range(len(shape)):
        grid = np.broadcast_to(
            np.arange(shape[axis]).reshape([-1 if a == axis else 1 for a in range(len(shape))]), shape
        )
        found.append(np.frombuffer(pack(np.ascontiguousarray(grid.astype(np.int8))), np.int8)[:count].tolist())
    return list(zip(*found, strict=True))


def runs(stream: Sequence[tuple[int, ...]], names: str) -> list[str]:
    """Return lines of a stream: elements that differ only in the last varying coordinate stand together."""
    lines, start = [], 0
    while start < len(stream):
        end, axis = start + 1, None
        while end < len(stream):
            changed = [a for a in range(len(names)) if stream[end][a] != stream[end - 1][a]]
            if len(changed) != 1 or stream[end][changed[0]] != stream[end - 1][changed[0]] + 1:
                break
            if axis not in (None, changed[0]):
                break
            axis, end = changed[0], end + 1
        first, last = stream[start], stream[end - 1]
        text = ", ".join(f"{n} {a}" if a == b else f"{n} {a}..{b}" for n, a, b in zip(names, first, last, strict=True))
        lines.append(f"bytes {start:3}..{end - 1:3}: {text}")
        start = end
    return lines


@example
def direct_order() -> str:
    shape = (9, 10, 1, 2)
    stream = order(lambda weights: pack_weights(weights, NV_SMALL), shape, 180)
    lines = runs(stream, "kcrs")
    shown = [*lines[:3], "...", *lines[7:10], "...", *lines[15:18], "...", *lines[-4:]]
    packed = len(pack_weights(np.zeros(shape, np.int8), NV_SMALL))
    return "\n".join([*shown, f"bytes 180..{packed - 1}: zeros"])


@example
def image_order() -> str:
    shape = (2, 4, 3, 2)
    stream = order(lambda weights: pack_image_weights(weights, NV_FULL, 1), shape, 48)
    return "\n".join(runs(stream, "kcrs"))


@example
def joined_rows() -> str:
    rows = []
    for target in (NV_FULL, NV_SMALL):
        for kernel, stride in ((3, 1), (5, 1), (7, 2), (8, 1), (11, 4)):
            vector = 4 * kernel
            exponent = post_extension(target, kernel, vector, stride)
            rows.append(
                (target.name, f"{kernel} / {stride}", vector, 1 << exponent, exponent, target.atomic_c // vector)
            )
    head = ("target", "kernel / stride", "vector", "rows joined", "post_extension", "floor(C / vector)")
    return table(head, rows)


@example
def weight_sizes() -> str:
    rows = []
    for name, kernels, channels, side in (
        ("LeNet conv2", 50, 20, 5),
        ("LeNet ip2", 10, 500, 1),
        ("VGG conv5", 512, 512, 3),
    ):
        weights = np.zeros((kernels, channels, side, side), np.int8)
        sizes = [len(pack_weights(weights, target)) for target in (NV_FULL, NV_LARGE, NV_SMALL)]
        rows.append((name, f"{kernels} x {channels} x {side} x {side}", weights.size, *sizes))
    return table(("layer", "weights", "elements", "nv_full", "nv_large", "nv_small"), rows)


@example
def compression() -> str:
    elements = [0, 5, 0, 0, -3, 0, 0, 0, 7, 7, 0, 0, 0, 0, 0, 1]
    mask = np.packbits(np.array(elements) != 0, bitorder="little")
    kept = np.array([value for value in elements if value], np.int8)
    operation = ConvOperation(
        0, Cube(0, 0, 8, 1, 1, 32, 1, 32, 32), Window(0, 0, 0), 2, 1, 1, 1, 1, None, 0, (1, 1), (1, 1), 0, 0, 0.0,
        Precision.INT8, None, True, 0,
    )  # fmt: skip
    sizes = np.array([len(kept)], "<u4")
    stream = decompress(operation, kept.view(np.uint8), mask, sizes.view(np.uint8), NV_FULL, "example").view(np.int8)
    assert stream.tolist() == elements
    return (
        f"stream     {joined(elements)}\n"
        f"WMB        {joined(f'0x{byte:02x}' for byte in mask)}\n"
        f"weights    {joined(kept.tolist())}\n"
        f"WGS        {sizes[0]} (one group)"
    )


@example
def entries() -> str:
    rows = []
    for channels, width, size in (
        (3, 32, 1),
        (20, 12, 1),
        (32, 14, 1),
        (64, 56, 1),
        (96, 14, 1),
        (100, 14, 1),
        (100, 14, 2),
    ):
        made = [feature_entries(target, channels, width, size) for target in (NV_FULL, NV_LARGE, NV_SMALL)]
        rows.append((f"{channels} x {width}", size, *made))
    for width, size in ((28, 1), (224, 1)):
        made = [image_entries(target, width, 0, size) for target in (NV_FULL, NV_LARGE, NV_SMALL)]
        rows.append((f"image, {width}", size, *made))
    return table(("channels x width", "bytes", "nv_full", "nv_large", "nv_small"), rows)


def work(
    kernels: int, channels: int, kernel: int, size: int, stride: int = 1, pad: int = 0, image: bool = False
) -> Work:
    """Return a convolution of a square cube."""
    output = (size + 2 * pad - kernel) // stride + 1
    pair = (kernel, kernel)
    return Work(kernels, channels, pair, pair, (stride,) * 2, (pad,) * 2, (size,) * 2, (output,) * 2, 1, image)


@example
def divisions() -> str:
    cases = [
        ("LeNet conv2 5x5", work(50, 20, 5, 12)),
        ("LeNet ip1 4x4", work(500, 50, 4, 4)),
        ("256 to 512, 3x3 on 64x64", work(512, 256, 3, 64, pad=1)),
        ("512 to 512, 3x3 on 14x14", work(512, 512, 3, 14, pad=1)),
        ("ResNet conv1 7x7 / 2", work(64, 4, 7, 224, 2, 3, image=True)),
    ]
    rows = []
    for name, asked in cases:
        for target in (NV_FULL, NV_LARGE, NV_SMALL):
            found = divide(target, asked)
            assert not isinstance(found, Shortage)
            runs_ = len(found.rows) * len(found.columns)
            rows.append((name, target.name, found.data, found.weights, found.mode, runs_, found.kernels))
    return table(("convolution", "target", "data", "weights", "mode", "runs", "kernels a run"), rows)


@example
def bank_limit() -> str:
    rows = []
    for target in (NV_FULL, NV_LARGE, NV_SMALL):
        most = (target.cbuf_banks - 1) * target.cbuf_bank_bytes // target.atomic_k
        fits = weight_banks(target, most * target.atomic_k)
        rows.append((target.name, target.cbuf_banks, target.cbuf_bank_bytes, target.atomic_k, most, fits))
    return table(("target", "banks", "bank, bytes", "kernels a group", "largest C R S", "banks of a group"), rows)
