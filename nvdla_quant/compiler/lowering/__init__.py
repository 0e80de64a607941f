"""From the network to operations of the units, in order: steps, parts that fit, runs, edges."""
