"""Networks of several outputs."""

from nvdla_quant.network.graph import Flatten, Network, Softmax
from tests.networks.builder import Builder


def alike_heads(seed: int = 0) -> Network:
    """Two heads of one shape, ``near`` and ``far``, which nothing but their values tells apart."""
    builder = Builder("alike", (3, 16, 16), seed=seed)
    stem = builder.conv_relu("stem", "data", 16, 3, 2)
    builder.conv("near", builder.conv_relu("neck", stem, 16, 3), 8, 1)
    builder.conv("far", stem, 8, 1)
    return builder.build()


def unlike_heads(seed: int = 0) -> Network:
    """Of other shapes, as a detector that classifies has them: a concatenation, and a Softmax on the CPU."""
    builder = Builder("unlike", (3, 16, 16), seed=seed)
    stem = builder.conv_norm("stem", "data", 16, 3, 2)
    builder.concat("boxes", builder.conv("left", stem, 8, 1), builder.conv("right", stem, 16, 3))
    builder.softmax(builder.fc("scores", builder.pool("pool", stem, "average", 2, 2), 10))
    return builder.build()


def many_heads(seed: int = 0) -> Network:
    """A tensor that layers read too, by way of a view; a pooling; a sum; two softmaxes."""
    builder = Builder("many", (3, 16, 16), seed=seed)
    stem = builder.conv_relu("stem", "data", 16, 3, 2)
    builder.add("flat", Flatten(), stem)
    builder.pool("pool", stem, "max", 2, 2)
    total = builder.relu("rectified", builder.eltwise("sum", "sum", stem, builder.conv("inner", stem, 16, 3)))
    builder.prelu("sloped", builder.conv("next", total, 5, 3))
    for name in "ab":
        builder.add(f"prob_{name}", Softmax(), builder.fc(f"fc_{name}", total, 6))
    return builder.build()


def small_heads(seed: int = 0) -> Network:
    """Of 1 x 8 x 8 images ``boxes`` 4 x 6 x 6 and ``classes`` 5 x 4 x 4: small enough for runs of the workflow."""
    builder = Builder("heads", (1, 8, 8), seed=seed)
    stem = builder.conv_relu("stem", "data", 8, 3, pad=0)
    builder.conv("boxes", stem, 4, 1)
    builder.conv("classes", stem, 5, 3, pad=0)
    return builder.build()
