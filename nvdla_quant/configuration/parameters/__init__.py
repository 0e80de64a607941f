"""What the jobs of the rules are given."""
