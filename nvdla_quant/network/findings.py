"""What is said of a layer: that something cannot run it, or runs it otherwise, and what to do."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """Something that a target cannot run (``error``), or runs with another result (``warning``).

    Attributes
    ----------
    layer : str
        Name of the layer; empty where the whole network is meant.
    rule : str
        Short name of the rule.
    severity : str
        ``error`` or ``warning``; the compiler refuses a network with an error.
    message : str
        What is found, what the limit is, with numbers.
    rewrite : str
        What would help; empty where nothing is known to.
    """

    layer: str
    rule: str
    severity: Literal["error", "warning"]
    message: str
    rewrite: str = ""
