"""A loadable without a claim: what its operations compute is searched for."""
