"""Charts of a sweep, drawn by Altair."""
