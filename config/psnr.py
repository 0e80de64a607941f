"""An example of `metric: command`: the PSNR of each output against a clean image, in dB.

The last two arguments are what every command is given: outputs.npz, the network's outputs in real units by name, and
images.npz, the test images and their places in the data set. The first is this script's own: the clean images, as IDX
packed with xz, in the order of the data set.
"""

import lzma
import sys

import numpy as np

clean_file, outputs_file, images_file = sys.argv[1:]
with lzma.open(clean_file) as file:
    head = np.frombuffer(file.read(16), ">u4")
    clean = np.frombuffer(file.read(), np.uint8).reshape(head[1:])
with np.load(outputs_file) as outputs, np.load(images_file) as images:
    (name,) = outputs.files
    restored, indices = outputs[name][:, 0] * 256, images["indices"]
error = np.square(np.clip(restored, 0, 255) - clean[indices]).mean(axis=(1, 2))
for number in 10 * np.log10(255**2 / np.maximum(error, 1e-9)):
    print(number)
