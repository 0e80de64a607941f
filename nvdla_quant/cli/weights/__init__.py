"""Commands that change a network's weights, or how they are rounded."""
