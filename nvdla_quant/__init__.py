"""INT8 and fp16 quantization of image classifiers for NVDLA: calibrate, compile, emulate, judge."""

__version__ = "0.1.0"
