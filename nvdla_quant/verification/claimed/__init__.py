"""A loadable with a claim: the claim is held to the network, and to the loadable."""
