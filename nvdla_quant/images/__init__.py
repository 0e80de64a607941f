"""Images: the data sets they come from, the choice of some, and the one definition of how a network sees them."""
