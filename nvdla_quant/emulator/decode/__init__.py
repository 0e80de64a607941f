"""From a loadable to typed operations: descriptors, addresses, order, races."""
