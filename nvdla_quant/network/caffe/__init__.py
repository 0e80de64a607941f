"""Caffe's files: prototxt and caffemodel."""
