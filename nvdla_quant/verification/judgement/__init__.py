"""From measures to a verdict: what it may be, how it is reached, what explains a wrong step."""
