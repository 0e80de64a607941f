"""When data and weights of a convolution stand in the buffer.

As long as both load, they take every second beat of the interface. Data alone take a little more than their beats, by
the four atoms of channels that are read together. Weights stream through their banks: beyond their room they wait until
the sequencer is done with a group of kernels.

A convolution that is enabled while another runs takes its registers when the sequencer is done with that one; but its
weights load before, as far as there is room, unless it divides the buffer otherwise (nvdla/hw, branch master,
``vmod/nvdla/cdma/NV_NVDLA_CDMA_wt.v``, ``need_pending``).
"""

from dataclasses import dataclass, field

from nvdla_quant.errors import LoadableError
from nvdla_quant.hardware.cbuf import ceil_div
from nvdla_quant.hardware.targets import Target
from nvdla_quant.timing.memory import Memory, beat_bytes
from nvdla_quant.timing.rates import beats, operand_queue, read_rate
from nvdla_quant.timing.records import Convolution

ATOMS = 4
"""Atoms of channels that are read together (nvdla/hw ``vmod/nvdla/cdma/NV_NVDLA_CDMA_dc.v``, its four channels)."""


def data_loaded(target: Target, memory: Memory, work: Convolution) -> float:
    """Cycles from a convolution's start until all its data stand in the buffer; 0 where they stood there before."""
    if not work.data_bytes:
        return 0.0
    rate = read_rate(target, memory)
    data, weights = beats(target, work.data_bytes), beats(target, work.weight_bytes - work.early_bytes)
    both = min(data, weights)
    alone = data - both
    cycles = max(alone / rate, alone + _line_cycles(target, work) * alone / data)
    first = target.timing.image if work.image else 0
    return memory.read_latency + target.timing.load_data + first + 2 * both / rate + cycles


def _line_cycles(target: Target, work: Convolution) -> float:
    """Cycles beyond their beats of all lines, where nothing else loads."""
    timing = target.timing
    if work.image:
        return min(timing.image_line * work.lines, timing.most_image_lines)
    whole, rest = divmod(work.atoms, ATOMS)
    # Three atoms are read as two and one; one has no other to wait for.
    last = {0: 0.0, 1: timing.line / 2, 2: timing.line, 3: work.width / 2 + timing.line}[rest]
    return (whole * (work.width + timing.line) + last) * work.lines


@dataclass
class WeightStream:
    """Weights of a convolution on their way to the buffer, in the order of the groups of kernels.

    Attributes
    ----------
    target, memory, work
        What loads them, from where, and what for.
    released : list[float]
        When the sequencer was done with each group.
    """

    target: Target
    memory: Memory
    work: Convolution
    released: list[float] = field(default_factory=list)
    _asked: float = field(init=False)
    _now: float = 0.0
    _freed: int = 0

    def __post_init__(self) -> None:
        self._rate = read_rate(self.target, self.memory)
        self._beats = beats(self.target, self.work.weight_bytes)
        self._asked = self._early = beats(self.target, self.work.early_bytes)
        self._both = min(beats(self.target, self.work.data_bytes), self._beats - self._early)
        self._room = beats(self.target, self.work.room_bytes)
        self._group = self.target.kernels_per_group(self.work.element_bytes)
        operands = beats(self.target, self.work.behind.operand_bytes)
        queue = operand_queue(self.target) * self.target.timing.operand_queue
        # Operands are read between the weights, but for those that the SDP's queue takes before.
        self._operands = max(0.0, operands - queue) / self._beats if self._beats else 0.0

    def loaded(self, group: int) -> float:
        """When the last weights of a group of kernels stand in the buffer; groups are asked for in order."""
        wanted = self._end(group)
        if wanted <= self._early:
            return 0.0
        while self._asked < wanted:
            room = self._room + (self._end(self._freed - 1) if self._freed else 0.0)
            if room > self._asked:
                upto = min(wanted, room)
                self._now += self._cycles(upto) - self._cycles(self._asked)
                self._asked = upto
            elif self._freed == len(self.released):
                raise LoadableError(
                    f"group {group} of a convolution's kernels takes more than its {self.work.room_bytes} bytes of "
                    "weight banks; hardware would wait for ever"
                )
            else:
                self._now = max(self._now, self.released[self._freed] + self.target.timing.release)
                self._freed += 1
        return self._now + self.memory.read_latency + self.target.timing.load_weights

    def _end(self, group: int) -> float:
        """Beats up to the end of a group."""
        kernels = (group + 1) * self._group
        if kernels >= self.work.kernels:
            return self._beats
        return min(self._beats, beats(self.target, kernels * self.work.kernel_bytes))

    def _cycles(self, asked: float) -> float:
        """Cycles in which so many beats are asked for, were there room for all."""
        late = asked - self._early
        return (late + min(late, self._both) + late * self._operands) / self._rate


def early_bytes(target: Target, memory: Memory, before: Convolution, work: Convolution, waits: float) -> int:
    """Bytes of a convolution's weights that load while the one before runs: all but its last group leave their room.

    Parameters
    ----------
    target, memory : Target, Memory
        The hardware, and where the weights are.
    before, work : Convolution
        The convolution that runs, and that which is enabled meanwhile.
    waits : float
        Cycles from there until the sequencer is done with `before`.
    """
    if before.banks != work.banks or before.keeps_weights or work.element_bytes != before.element_bytes:
        return 0
    group = target.kernels_per_group(before.element_bytes)
    last = before.kernels - (ceil_div(before.kernels, group) - 1) * group
    room = before.room_bytes - last * before.kernel_bytes
    return max(0, min(work.weight_bytes, room, int(waits * read_rate(target, memory) * beat_bytes(target))))
