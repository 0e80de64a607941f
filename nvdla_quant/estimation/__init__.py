"""How long a loadable takes on the hardware: its operations' costs, put together as the firmware would run them."""
