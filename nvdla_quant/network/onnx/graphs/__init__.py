"""Graphs without what exporters leave behind."""
