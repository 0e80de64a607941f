"""What a target can run, rewrites that let it run more, and what compilers get wrong."""
