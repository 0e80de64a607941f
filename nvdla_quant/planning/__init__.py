"""What a job will need, told before it runs from the sizes of what it reads."""
