"""Bit-exact model of NVDLA that runs loadables on batches of images.

It shares no code with the compiler: it is the compiler's judge.
"""

from nvdla_quant.emulator.machine import run
from nvdla_quant.emulator.program import Program, decode

__all__ = ["Program", "decode", "run"]
