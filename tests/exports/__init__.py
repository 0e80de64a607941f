"""Networks of PyTorch and Keras, thin ones with seeded random weights, and what the real exporters make of them.

`tests/data/exports` has some of the files, and its README.md says how they were made. The modules here need packages
that are no dependency of the project, and no test imports them, but for `pack`, `packed` and `tensorrt_caches`.
"""
