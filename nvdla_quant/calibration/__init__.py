"""Scales of activations from calibration images: thresholds, on the CPU or by TensorRT."""
