"""Bit-exact model of NVDLA that runs loadables on batches of images.

`program.decode` turns a loadable into operations, `run.run` executes them. It shares no code with the compiler: it is
the compiler's judge.
"""
