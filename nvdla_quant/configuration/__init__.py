"""The configuration, and all that follows from it before anything runs: runs, artefacts, what each job is given."""
