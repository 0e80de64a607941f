"""Networks: a small immutable graph, and readers, writers and passes over it."""
