"""What a configuration's clock cycles follow from, beside its sizes: data only, used by `nvdla_quant.timing`.

Sources: *RTL*, read in nvdla/hw (branch master); *fitted*, from cycles that NVIDIA's RTL of nv_small, nv_small_256,
nv_medium_512 and nv_large took, one value for all four (docs/timing.md has both, and what they leave).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Cycles that do not follow from a configuration's sizes.

    Attributes
    ----------
    load_data, load_weights : int
        From the enabling of a convolution until its first data, and weights, stand in the buffer, behind the memory's
        latency: fitted.
    early_weights : int
        How much before its last weights a group of kernels may begin: fitted.
    line : int
        Of each line that data alone load, for each four atoms of channels: fitted.
    image, image_line : int
        Of an image, and of each of its lines that loads alone: fitted.
    most_image_lines : int
        Most that the lines of an image take so: fitted.
    credit : int
        From the last value that leaves the accumulator until the sequencer may fill its room again: fitted; its parts
        are registers between sequencer, MAC array and accumulator.
    results : int
        From the sequencer's last step until the accumulator is done, of features: fitted; of an image `image_results`
        less.
    image_results : int
        See `results`.
    written : int
        From there until the SDP has written all, without the memory's latency: fitted.
    written_y : int
        What the SDP's Y unit adds to that: fitted.
    release : int
        From the last step of a group of kernels until its room in the buffer takes weights, less what is under way:
        fitted.
    operand_queue : float
        Share of the SDP's queue of operands that is full before the first of them is used: fitted.
    point, pooling, normalisation : int
        Of an operation of the SDP, the PDP or the CDP on data in memory, behind two latencies: fitted.
    normalisation_atoms : int
        Over the bytes of an atom, what the CDP takes besides: fitted.
    queue_latency, queue_done : int
        What a read takes behind the memory's latency where a queue is too short for it, and what the last one does:
        fitted.
    outstanding : float
        What a read takes behind the memory's latency where no more may be under way: fitted.
    register_write, register_read : float
        Of the processor's access to a register where it takes no time itself: fitted.
    interrupt : int
        From an operation's end until the processor reads the first register: fitted.
    most_outstanding : int
        Reads that the core has under way at most: seen on the interface (docs/timing.md).
    """

    load_data: int = 45
    load_weights: int = 43
    early_weights: int = 8
    line: int = 2
    image: int = 14
    image_line: int = 2
    most_image_lines: int = 64
    credit: int = 38
    results: int = 40
    image_results: int = 3
    written: int = 26
    written_y: int = 13
    release: int = -3
    operand_queue: float = 0.75
    point: int = 66
    pooling: int = 56
    normalisation: int = 87
    normalisation_atoms: int = 256
    queue_latency: int = 15
    queue_done: int = 40
    outstanding: float = 1.3
    register_write: float = 2.25
    register_read: float = 19.5
    interrupt: int = 7
    most_outstanding: int = 256


FITTED = Timing()
"""The values of all four, taken for every target."""
