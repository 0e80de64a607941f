"""Commands for calibration caches and tables."""
