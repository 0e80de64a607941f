"""Judging results over a data set: accuracy, and how far runs differ."""
