"""The words of a verdict: judgements, causes, findings."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from nvdla_quant.verification.measures.comparison import Comparison


class Judgement(StrEnum):
    """What a loadable is.

    ``miscompiled``: it computes something else than its network and table say. ``table``: it does what they say, and
    that is far from the float network. ``precision``: the same in fp16, which has no table. ``unknown``: nobody could
    say what some of its operations are for, which does not make it wrong.
    """

    OK = "ok"
    TABLE = "table"
    MISCOMPILED = "miscompiled"
    PRECISION = "precision"
    UNKNOWN = "unknown"


class Cause(StrEnum):
    """What can be wrong."""

    IMAGE_ROWS = "A first-convolution-rows"
    CONSTANT_CONVOLUTION = "B constant-first-convolution"
    HALF_WEIGHTS = "C first-convolution-fp16-weights"
    GROUP_WEIGHTS = "D group-convolution-weights"
    POOLING_SCALE = "E inconsistent-pooling-scale"
    CONCAT_SCALE = "E inconsistent-concat-scale"
    ELTWISE_SCALE = "eltwise-scale-overwritten"
    PRODUCT = "product-rescale"
    NO_LOOKUP = "missing-lookup-table"
    EMPTY_LOOKUP = "empty-lookup-table"
    RACE = "race"
    INPUT_SCALE = "wrong-input-scale"
    CONSTANT = "constant-output"
    SATURATED_SOFTMAX = "saturated-softmax"
    OVERFLOW = "softmax-overflow"
    CLIPPING = "clipping"
    WEIGHTS = "wrong-weights"
    FACTOR = "wrong-factor"
    CHANNELS = "wrong-channels"
    SCALE = "wrong-scale-of-an-input"
    UNWRITTEN = "reads-unwritten-memory"
    RESULT = "wrong-result"
    ROUNDING = "roundings-of-the-hardware"
    CLAIM = "wrong-claim"
    OUTPUT = "wrong-output"
    UNPLACED = "not-understood"
    FAILED = "verification-failed"


class Weight(StrEnum):
    """What a finding means for the verdict.

    ``wrong``: the loadable is miscompiled. ``scale``: it is, unless the scores are near all the same. ``doubt``: it may
    be. ``table``: the table asks for it. ``remark``: it changes nothing.
    """

    WRONG = "wrong"
    SCALE = "scale"
    DOUBT = "doubt"
    TABLE = "table"
    REMARK = "remark"


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes
    ----------
    cause : Cause
        The likely cause.
    weight : Weight
        What it means for the verdict.
    layer : str
        Layer whose tensor shows it.
    operation : int or None
        Number of the operation in the loadable.
    evidence : str
        What was found.
    """

    cause: Cause
    weight: Weight
    layer: str
    operation: int | None
    evidence: str


@dataclass(frozen=True)
class Near:
    """How near one of several outputs is to the references: fields as of `Verdict`, of this output alone."""

    scores_layer: str
    fp32: Comparison
    simulated: Comparison | None
    margin: float


@dataclass(frozen=True)
class Verdict:
    """What a loadable is, and why.

    Attributes
    ----------
    verdict : Judgement
        The judgement.
    first_bad_layer : str or None
        Where the first finding shows that the verdict rests on.
    cause : Cause or None
        Its cause.
    findings : tuple[Finding, ...]
        In the order of execution, those that the verdict rests on first.
    scores_layer : str or None
        Tensor that the references were compared on: the one before a final softmax; of several outputs, that of the
        farthest from the float network; None where it was not found.
    fp32, simulated : Comparison or None
        That tensor beside the float network, and beside the simulated int8 network (None in fp16).
    target, precision : str
        What it was run as.
    mode : str or None
        How its weights share scales, as they tell.
    margin : float or None
        How far the scores are inside of the limits of near to the float network; negative where they are beyond.
    claimed : bool
        Whether the compiler said what the operations stand for; else it was searched for.
    images : int
        Images that were run.
    warnings : tuple[str, ...]
        What the hardware ignores.
    outputs : tuple[Near, ...]
        Each of several outputs; ``verdict.json`` has the key for these alone.
    """

    verdict: Judgement
    first_bad_layer: str | None
    cause: Cause | None
    findings: tuple[Finding, ...]
    scores_layer: str | None
    fp32: Comparison | None
    simulated: Comparison | None
    target: str
    precision: str
    mode: str | None
    margin: float | None
    claimed: bool
    images: int
    warnings: tuple[str, ...]
    outputs: tuple[Near, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return what ``verdict.json`` holds; numbers that are not finite as text."""
        result: dict[str, Any] = _plain(asdict(self))
        if not self.outputs:
            del result["outputs"]
        return result


def _plain(value: Any) -> Any:
    """Return `value` as JSON can hold it."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value
