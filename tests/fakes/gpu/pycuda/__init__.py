"""Stands in for pycuda: the GPU's memory is this process's."""
