"""Network + calibration table + target -> loadable, in stages: lower, quantize, tile, schedule, memory, emit."""
