"""What the values of an ONNX graph are in terms of our tensors."""
