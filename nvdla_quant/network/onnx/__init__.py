"""ONNX files: how a network is read from one, and written."""
