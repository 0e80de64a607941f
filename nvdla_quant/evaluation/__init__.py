"""Judging results: accuracy over a data set, layer by layer errors, what is wrong and why."""
