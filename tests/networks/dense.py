"""Networks with a result for each pixel: a detector with two heads, and one that labels pixels.

Small ones, since what they are tested for is the way of their layers together. As files they come with what stands
behind such networks when people export them, which no accelerator runs: see `detector_onnx` and below.
``python -m tests.networks.dense FOLDER`` writes them, and images to try them with.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nvdla_quant.execution.fp32 import Reference
from nvdla_quant.network.files import write_model
from nvdla_quant.network.graph import BatchNorm, Deconvolution, Network
from nvdla_quant.network.onnx.writer import to_onnx
from tests.networks.builder import Builder
from tests.verified import smooth_images

CLASSES, ANCHORS = 3, 3
"""Of the detector: each anchor of a pixel has a place, a size, a score, and one of each class."""
HEADS = ("head8", "head16")
"""Outputs of the detector: a prediction every 8 pixels and every 16, the finer first in the file."""


def detector(side: int = 48, seed: int = 0) -> Network:
    """In the likeness of tiny YOLO v3 (Redmon and Farhadi 2018): leaky ReLU of 0.1, five poolings fewer, two heads."""
    builder = Builder("detector", (3, side, side), seed=seed)

    def block(name: str, source: str, outputs: int, kernel: int = 3) -> str:
        """Add convolution, BatchNorm and leaky ReLU."""
        values = builder.norm(name, builder.conv(f"{name}_conv", source, outputs, kernel, bias=False))
        return builder.relu(name, values, 0.1)

    last = "data"
    for number, outputs in enumerate((8, 16, 24), 1):
        last = builder.pool(f"pool{number}", block(f"block{number}", last, outputs), "max", 2, 2)
    fine = block("block4", last, 32)
    coarse = block("neck", block("block5", builder.pool("pool4", fine, "max", 2, 2), 48), 24, 1)
    up = nearest(builder, "up", block("lateral", coarse, 16, 1))
    depth = ANCHORS * (5 + CLASSES)
    builder.conv("head8", block("block6", builder.concat("route", up, fine), 32), depth, 1)
    builder.conv("head16", block("block7", coarse, 48), depth, 1)
    return normalised(builder.build())


def nearest(builder: Builder, name: str, source: str) -> str:
    """Each pixel four times, as Caffe networks have it: a transposed convolution of ones, a group a channel."""
    channels = builder.channels(source)
    ones = np.ones((channels, 1, 2, 2), np.float32)
    return builder.add(name, Deconvolution(ones, None, (2, 2), (0, 0), (1, 1), channels), source)


def labeller(side: int = 32, seed: int = 0) -> Network:
    """In the likeness of U-Net (Ronneberger et al. 2015): two levels, skipped to the way up; scores for each pixel."""
    builder = Builder("labeller", (3, side, side), seed=seed)

    def twice(name: str, source: str, outputs: int) -> str:
        """Add two convolutions with BatchNorm and ReLU."""
        return builder.conv_norm(f"{name}b", builder.conv_norm(f"{name}a", source, outputs, 3), outputs, 3)

    first = twice("down1", "data", 12)
    second = twice("down2", builder.pool("pool1", first, "max", 2, 2), 16)
    last = twice("middle", builder.pool("pool2", second, "max", 2, 2), 24)
    grown = builder.deconv("grow2", last, 16, 2, 2)
    last = builder.conv_norm("up2", builder.concat("join2", second, grown), 16, 3)
    last = builder.conv_norm("up1", builder.concat("join1", first, nearest(builder, "grow1", last)), 12, 3)
    builder.conv("scores", last, CLASSES, 1)
    return normalised(builder.build())


def normalised(network: Network) -> Network:
    """Return the network with the statistics of images in its BatchNorms, as training leaves them.

    With others, values hardly vary between images deep within, and int8's steps are coarse beside what varies.
    """
    images = smooth_images(network.only_input.chw, 16, seed=2)
    for number, layer in enumerate(network.layers):
        if isinstance(layer.operation, BatchNorm):
            (source,) = layer.inputs
            values = Reference(network, [source]).run(images)[source].astype(np.float64)
            mean, variance = (array.astype(np.float32) for array in (values.mean((0, 2, 3)), values.var((0, 2, 3))))
            settled = replace(layer, operation=replace(layer.operation, mean=mean, variance=variance))
            network = replace(network, layers=(*network.layers[:number], settled, *network.layers[number + 1 :]))
    return network


def detector_onnx(network: Network) -> onnx.ModelProto:
    """The detector as exporters write it, box decoding and suppression behind it.

    That is what Ultralytics' exports with ``nms=True`` end in: sigmoids of a head whose anchors have an axis of their
    own, places and sizes by slices, all heads in one list, NonMaxSuppression, whose result has as many rows as it has.
    """
    model = to_onnx(network)
    graph = model.graph
    attributes = 5 + CLASSES

    def constant(name: str, values: object, kind: type = np.int64) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def node(kind: str, reads: list[str], name: str, **given: object) -> str:
        graph.node.append(helper.make_node(kind, reads, [name], name, **given))
        return name

    boxes, scores = [], []
    for head in HEADS:
        _, height, width = network.tensors[head].shape
        apart = constant(f"{head}/apart", [1, ANCHORS, attributes, height, width])
        last = node("Reshape", [head, apart], f"{head}/anchors")
        last = node("Sigmoid", [node("Transpose", [last], f"{head}/last", perm=[0, 1, 3, 4, 2])], f"{head}/sigmoid")
        listed = node("Reshape", [last, constant(f"{head}/all", [1, -1, attributes])], f"{head}/list")
        axis = constant(f"{head}/axis", [2])
        for kind, start, end, found in (("boxes", 0, 4, boxes), ("scores", 5, attributes, scores)):
            limits = [constant(f"{head}/{kind}/{name}", [at]) for name, at in (("from", start), ("to", end))]
            found.append(node("Slice", [listed, *limits, axis], f"{head}/{kind}"))
    every = node("Concat", boxes, "boxes", axis=1)
    by_class = node("Transpose", [node("Concat", scores, "scores", axis=1)], "by_class", perm=[0, 2, 1])
    most = constant("most", [20])
    limit, least = constant("overlap", [0.5], np.float32), constant("least", [0.3], np.float32)
    node("NonMaxSuppression", [every, by_class, most, limit, least], "detections")
    graph.ClearField("output")
    graph.output.append(helper.make_tensor_value_info("detections", TensorProto.INT64, ["found", 3]))
    return model


def labels_onnx(network: Network) -> onnx.ModelProto:
    """The labeller as exporters write it: the label of each pixel is that of the largest score, by ArgMax."""
    model = to_onnx(network)
    model.graph.node.append(helper.make_node("ArgMax", ["scores"], ["labels"], "labels", axis=1, keepdims=0))
    _, height, width = network.tensors["scores"].shape
    model.graph.ClearField("output")
    model.graph.output.append(helper.make_tensor_value_info("labels", TensorProto.INT64, ["n", height, width]))
    return model


def detector_caffe(prototxt: str) -> str:
    """The prototxt of the detector with what stands behind it in SSD's branch of Caffe: boxes, priors, suppression."""
    heads = "".join(
        f'layer {{ name: "{head}_last" type: "Permute" bottom: "{head}" top: "{head}_last" }}\n'
        f'layer {{ name: "{head}_flat" type: "Flatten" bottom: "{head}_last" top: "{head}_flat" }}\n'
        f'layer {{ name: "{head}_prior" type: "PriorBox" bottom: "{head}" bottom: "data" top: "{head}_prior" }}\n'
        for head in HEADS
    )
    bottoms = " ".join(f'bottom: "{head}_{what}"' for what in ("flat", "prior") for head in HEADS)
    return f'{prototxt}{heads}layer {{ name: "detections" type: "DetectionOutput" {bottoms} top: "detections" }}\n'


def main(folder: Path) -> None:
    """Write both networks with what stands behind them, the detector in Caffe's files too, and images."""
    folder.mkdir(parents=True, exist_ok=True)
    network, labels = detector(), labeller()
    structure = folder / "detector.prototxt"
    write_model(network, [structure, folder / "detector.caffemodel"])
    structure.write_text(detector_caffe(structure.read_text()))
    onnx.save(detector_onnx(network), folder / "detector.onnx")
    onnx.save(labels_onnx(labels), folder / "labels.onnx")
    for name, made in (("detector", network), ("labels", labels)):
        shape = made.only_input.chw
        np.save(folder / f"{name}-calibration.npy", smooth_images(shape, 32))
        np.save(folder / f"{name}-images.npy", smooth_images(shape, 6, seed=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
