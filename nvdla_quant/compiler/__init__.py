"""Network, calibration table and target in, loadable out: lower, quantize, tile, schedule, memory, emit.

`compile.compile_network` does it; NVIDIA's compiler and what reads claims are here too, and do not wait for it.
"""
