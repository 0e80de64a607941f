"""The pages of docs/hardware and what a program can say about them."""
