"""What a convolution costs, with the SDP that takes its results."""

from nvdla_quant.hardware.cbuf import ceil_div
from nvdla_quant.hardware.targets import Target
from nvdla_quant.timing.loading import WeightStream, data_loaded
from nvdla_quant.timing.memory import Memory
from nvdla_quant.timing.rates import beats, read_rate, write_rate
from nvdla_quant.timing.records import Bound, Convolution, Spent
from nvdla_quant.timing.sequence import State, sequencer


def convolution_cycles(target: Target, memory: Memory, work: Convolution) -> Spent:
    """Return the cycles of a convolution, from its start until its output is in memory.

    Parameters
    ----------
    target : Target
        The hardware.
    memory : Memory
        What it loads from and writes to.
    work : Convolution
        The operation.
    """
    group = target.kernels_per_group(work.element_bytes)
    groups = ceil_div(work.kernels, group)
    over = sequencer(target, work.steps, work.element_bytes, work.image)
    loads, stream = data_loaded(target, memory, work), WeightStream(target, memory, work)
    pixel, pixels = _pixel_cycles(target, memory, work, groups), work.rows * work.row

    macs = over.group_cycles(work.rows, work.row)
    shares = dict.fromkeys(Bound, 0.0)
    state = start = State(0.0, 0.0)
    known: dict[object, State] = {}
    begun = out = loaded = 0.0
    for number in range(groups):
        kernels = min(group, work.kernels - number * group)
        loaded = stream.loaded(number)
        ready = loaded - target.timing.early_weights + kernels
        if number:
            before, start = start, State(max(state.free, ready), state.delivered, state.recent)
            spent_on = Bound.WEIGHTS if ready > state.free else _computing(state.free - before.free, macs)
            shares[spent_on] += start.free - before.free
        else:
            begun = max(loads + kernels, ready)
            first = min(begun, float(memory.read_latency + target.timing.load_data))
            shares[Bound.DATA if loads + kernels >= ready else Bound.WEIGHTS] += begun - first
            start = State(begun, 0.0)
        # Groups that find sequencer and accumulator as another one did go like it.
        if start.shape not in known:
            known[start.shape] = over.group(start, work.rows, work.row).shifted(-start.free)
        state = known[start.shape].shifted(start.free)
        stream.released.append(state.free)
        last, stripe = state.recent[0]
        out = max(max(out, start.free) + pixels * pixel, last + stripe * pixel)
    shares[_computing(state.free - start.free, macs)] += state.delivered - start.free
    done = max(state.delivered, out)
    shares[Bound.OUTPUT] += done - state.delivered
    if pixels * pixel > macs:
        # What comes behind takes longer than the MAC array, which waits for it.
        shares |= {Bound.MACS: 0.0, Bound.OUTPUT: shares[Bound.OUTPUT] + shares[Bound.MACS]}
    results, way = _ways_out(target, memory, work)
    shares[Bound.LATENCY] += first + results + way
    return Spent(shares, loads, loaded, state.free, done + results)


def _computing(took: float, macs: int) -> Bound:
    """Return what a group of kernels is bound by that waits for no weights: the MAC array, or room for its results."""
    return Bound.OUTPUT if took > macs else Bound.MACS


def _ways_out(target: Target, memory: Memory, work: Convolution) -> tuple[float, float]:
    """Cycles behind the last value: to the accumulator's end, and from there through the SDP to memory."""
    timing = target.timing
    results = timing.results - (timing.image_results if work.image else 0)
    return results, timing.written + (timing.written_y if work.behind.uses_y else 0) + memory.write_latency


def _pixel_cycles(target: Target, memory: Memory, work: Convolution, groups: int) -> float:
    """Cycles of the SDP behind the accumulator, and of its memory, for a pixel and a group of kernels."""
    behind, share = work.behind, 1 / (work.rows * work.row * groups)
    wrote = beats(target, behind.output_bytes) * share / write_rate(target, memory)
    read = beats(target, behind.operand_bytes) * share / read_rate(target, memory)
    if memory.shared:
        wrote = read = wrote + read
    y = target.kernels_per_group(work.element_bytes) / target.rates.y if behind.uses_y else 0.0
    return max(wrote, read, y)
