"""Geometry of rewrites that the compiler makes and that `support` has to foresee."""

from dataclasses import dataclass
from math import gcd, lcm


def groups_together(inputs: int, outputs: int, group: int, atom: int) -> int:
    """Return how many groups run as one dense convolution.

    Tensors can be cut between atoms of channels alone, so a block begins and ends with atoms, or is everything.

    Parameters
    ----------
    inputs, outputs : int
        Channels of one group.
    group : int
        Number of groups.
    atom : int
        Channels of an atom.
    """
    return min(lcm(atom // gcd(atom, outputs), atom // gcd(atom, inputs)), group)


@dataclass(frozen=True)
class Phase:
    """One phase of a deconvolution along one axis: a convolution of stride 1.

    Attributes
    ----------
    taps : range
        Weights that it takes, in the order of a convolution; empty where it is the bias alone.
    pad : int
        Padding before; negative where the first inputs are not read.
    count : int
        Outputs.
    """

    taps: range
    pad: int
    count: int


def phases(kernel: int, stride: int, pad: int, output: int) -> tuple[Phase, ...]:
    """Phases of a deconvolution along one axis: outputs 0, stride, ...; outputs 1, stride + 1, ...; and so on.

    Output Y takes the weights k of the inputs y with stride * y + k = Y + pad. With Y + pad = stride * m + r those are
    k = r + stride * t for y = m - t: every stride-th weight, in reverse.

    Parameters
    ----------
    kernel, stride, pad, output : int
        Of the deconvolution; dilation written out.
    """
    found = []
    for first in range(min(stride, output)):
        whole, rest = divmod(first + pad, stride)
        taps = range(rest, kernel, stride)[::-1]
        found.append(Phase(taps, max(len(taps), 1) - 1 - whole, -(-(output - first) // stride)))
    return tuple(found)
