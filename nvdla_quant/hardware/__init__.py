"""The hardware configurations, and how a convolution shares the convolution buffer."""
