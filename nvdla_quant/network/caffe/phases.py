"""Layers of a Caffe network that do not run at test time."""

from nvdla_quant.network.caffe import caffe_pb2 as pb


def is_restricted(layer: pb.LayerParameter) -> bool:
    """Whether a layer belongs to one phase only, or its rules exclude it at level 0 without stages."""
    rules = [*layer.include, *layer.exclude]
    if layer.HasField("phase") or any(rule.HasField("phase") for rule in rules):
        return True
    if layer.include:
        return not any(map(_meets, layer.include))
    return any(map(_meets, layer.exclude))


def phase_of(layer: pb.LayerParameter) -> str:
    """Return the phase that a layer is restricted to, as text behind its type."""
    rules = [rule for rule in layer.include if rule.HasField("phase")]
    phases = [layer.phase] if layer.HasField("phase") else [rule.phase for rule in rules]
    return "".join(f" for {pb.Phase.Name(phase)}" for phase in phases)


def _meets(rule: pb.NetStateRule) -> bool:
    """Whether level 0 without stages meets a rule without phase."""
    above = not rule.HasField("min_level") or rule.min_level <= 0
    below = not rule.HasField("max_level") or rule.max_level >= 0
    return above and below and not rule.stage
