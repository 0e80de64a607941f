"""Units in half precision, bit for bit and fast."""
