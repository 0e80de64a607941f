"""From a loadable to a program of registers: what NVIDIA's firmware writes, in its order, and what it waits for."""
