"""ONNX files: read into the graph of `network.graph`."""
