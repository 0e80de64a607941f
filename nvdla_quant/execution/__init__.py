"""The float network: in fp32, and with int8 steps."""
