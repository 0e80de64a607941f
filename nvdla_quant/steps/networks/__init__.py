"""Jobs that make the forms of a network, and say what can run them."""
