"""Network, calibration table and target in, loadable out: lower, quantize, tile, schedule, memory, emit."""

from nvdla_quant.compiler.compile import BUILTIN, Compilation, Report, compile_network

__all__ = ["BUILTIN", "Compilation", "Report", "compile_network"]
