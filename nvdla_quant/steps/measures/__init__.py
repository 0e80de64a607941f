"""Score what ran: against labels, against fp32 alone, and by a command of the user."""
