"""How many clock cycles operations take on the hardware, and what they read and write: nothing here runs them."""
