"""Traces: register programs with their memory images and expected results, in NVIDIA's two formats."""
