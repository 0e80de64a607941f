"""Calibration caches and tables: formats, names, and scales that must agree."""
