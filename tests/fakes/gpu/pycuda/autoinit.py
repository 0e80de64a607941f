"""Importing it makes a context."""
