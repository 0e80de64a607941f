"""Units in integers, bit for bit."""
