"""What each ONNX operator means: one function an operator, from its node to layers."""
