"""Cases that are measured by fp32's outputs: frames, tables, the figure."""
