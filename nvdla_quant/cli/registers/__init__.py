"""Commands for register programs."""
