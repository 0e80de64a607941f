"""An ONNX file as a message that is safe to work on."""
