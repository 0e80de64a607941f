"""Is a loadable right, and where is it not: claims, layers, verdicts."""
