"""From operations to bytes: addresses, packed weights, descriptors, the loadable's lists."""
