"""Tables and plots of a sweep."""
