"""The gallery: networks in the likeness of those that people deploy, at their own size and at a small one.

Tests of the compiler, the emulator, the verdicts and `check` take them from here, and so does
``python -m benchmarks.gallery``. The topologies are public knowledge; weights are random, see `builder.Builder`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from nvdla_quant.network.graph import Network
from tests.networks import classic, kinds, mobile, residual


class Build(Protocol):
    """Makes a network of an input side, a factor of its channels, and a seed (None: without weights)."""

    def __call__(self, side: int, width: float = 1.0, seed: int | None = 0) -> Network: ...


@dataclass(frozen=True)
class Entry:
    """One network of the gallery.

    Attributes
    ----------
    build : Build
        Its builder.
    side : int
        Side of the input at full size.
    reduced_side, reduced_width : int, float
        Side and factor of the channels for quick tests; what makes the network special is still there.
    """

    build: Build
    side: int
    reduced_side: int
    reduced_width: float = 1.0

    def full(self, seed: int | None = 0) -> Network:
        """Return the network as it is deployed."""
        return self.build(self.side, 1.0, seed)

    def reduced(self, seed: int | None = 0) -> Network:
        """Return the network for quick tests."""
        return self.build(self.reduced_side, self.reduced_width, seed)


GALLERY: Mapping[str, Entry] = MappingProxyType(
    {
        "alexnet": Entry(classic.alexnet, 227, 67, 1 / 8),
        "caffenet": Entry(classic.caffenet, 227, 67, 1 / 8),
        "vgg16": Entry(classic.vgg16, 224, 32, 1 / 8),
        "googlenet": Entry(classic.googlenet, 224, 64, 1 / 4),
        "squeezenet-1.0": Entry(classic.squeezenet10, 227, 43, 1 / 4),
        "squeezenet-1.1": Entry(classic.squeezenet11, 227, 51, 1 / 4),
        "nin": Entry(classic.nin, 32, 32, 1 / 8),
        "cifar10-quick": Entry(classic.cifar10_quick, 32, 32, 1 / 2),
        "cifar10-full": Entry(classic.cifar10_full, 32, 32, 1 / 2),
        "resnet20": Entry(residual.resnet20, 32, 16, 1 / 2),
        "resnet18": Entry(residual.resnet18, 224, 48, 1 / 8),
        "resnet50": Entry(residual.resnet50, 224, 48, 1 / 16),
        "mobilenet-v1": Entry(residual.mobilenet1, 224, 48, 1 / 4),
        "mobilenet-v2": Entry(residual.mobilenet2, 224, 48, 1 / 4),
        "densenet40": Entry(residual.densenet40, 32, 16, 1 / 2),
        "densenet121": Entry(residual.densenet121, 224, 32, 1 / 8),
        "unet": Entry(residual.unet, 224, 32, 1 / 4),
        "slopes": Entry(kinds.slopes, 32, 16),
        "eltwise": Entry(kinds.eltwise, 12, 12),
        "functions": Entry(kinds.functions, 28, 28),
        "between": Entry(kinds.between, 16, 16),
        "wide-inner-product": Entry(kinds.wide_inner_product, 64, 48),
        "inner-product-of-image": Entry(kinds.inner_product_of_image, 32, 32),
        **{f"global-average-{side}": Entry(kinds.global_average, side, side) for side in (11, 13, 14, 16, 17)},
        "deconvolution-tail": Entry(kinds.deconvolution_tail, 64, 32, 1 / 2),
        "dilated": Entry(kinds.dilated, 32, 32),
        "average-at-border": Entry(kinds.average_at_border, 16, 16),
        "groups-in-runs": Entry(kinds.groups_in_runs, 12, 12),
        "concat-side-by-side": Entry(kinds.concat_side_by_side, 14, 14),
        "growing-concats": Entry(kinds.growing_concats, 8, 8),
        "inner-product-in-parts": Entry(kinds.inner_product_in_parts, 16, 16),
        "inner-product-of-many": Entry(kinds.inner_product_of_many, 16, 16, 1 / 2),
        "fc6": Entry(kinds.fc6, 7, 7, 1 / 8),
        "average-chain": Entry(kinds.average_chain, 16, 16),
        "average-padded": Entry(kinds.average_padded, 16, 16),
        "depthwise-short": Entry(kinds.depthwise_short, 64, 32, 1 / 4),
        "depthwise-long": Entry(kinds.depthwise_long, 64, 32, 1 / 4),
        "depthwise-average": Entry(kinds.depthwise_average, 14, 14),
        "sum-of-three": Entry(kinds.sum_of_three, 16, 16),
        "deconvolution-concat": Entry(kinds.deconvolution_concat, 16, 16),
        "cropped": Entry(kinds.cropped, 44, 20, 1 / 2),
        "passthrough": Entry(kinds.passthrough, 32, 16, 1 / 2),
        "mobilenet-v2-relu6": Entry(mobile.mobilenet2_relu6, 224, 48, 1 / 4),
        "mobilenet-v3": Entry(mobile.mobilenet3, 224, 48, 1 / 4),
        "efficientnet-b0": Entry(mobile.efficientnet, 224, 32, 1 / 8),
        "shufflenet-v2": Entry(mobile.shufflenet2, 224, 48, 1 / 4),
        "padded-otherwise": Entry(kinds.padded_otherwise, 24, 24),
        "bounds": Entry(kinds.bounds, 16, 16),
        "more-functions": Entry(kinds.more_functions, 16, 16),
    }
)
"""Every network by its name on the command line."""
