"""Names, places and fields of every register, a table for each part of the hardware."""
