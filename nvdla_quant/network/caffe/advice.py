"""What to do about layers that are not read."""

from nvdla_quant.network.caffe import caffe_pb2 as pb
from nvdla_quant.network.caffe.layers import DATA_TYPES

_TABLE = "NVDLA has one look-up table a layer, filled for Sigmoid and TanH alone; train with ReLU or PReLU"

_PICK = "write a Convolution by 1 x 1 whose weights are 1 where an output takes a channel, else 0"

_CLIP = (
    "write a ReLU: in int8 a scale of 6 / 127 for it in the calibration table saturates at 6 just so; in fp16 it "
    "differs where values exceed 6, so measure"
)

_TRAINING = "it is for training; remove it"

_OWN_CODE = "nothing here runs it; end the network before it, and compute it from the network's output"

ADVICE: dict[str, str] = {
    "AbsVal": "write Eltwise MAX of its bottom and of a Power with scale: -1 of it",
    "Accuracy": _TRAINING,
    "ArgMax": "remove it; the accuracy report takes the largest score itself",
    "Axpy": "nothing in NVDLA multiplies channels by values that the network computes; train without it",
    "BNLL": _TABLE,
    "Bias": "write a Scale with bias_term: true and factors of 1",
    "Clip": f"for 0 to 6, {_CLIP}",
    "DetectionOutput": _OWN_CODE,
    "ELU": _TABLE,
    "EuclideanLoss": _TRAINING,
    "Exp": _TABLE,
    "HardSigmoid": _TABLE,
    "HardSwish": _TABLE,
    "HingeLoss": _TRAINING,
    "InfogainLoss": _TRAINING,
    "Interp": (
        "where it enlarges by a whole number, write a Deconvolution with group and num_output of the channels and "
        "bilinear weights"
    ),
    "Log": _TABLE,
    "MVN": "it divides by statistics of the image itself, which NVDLA cannot; train with BatchNorm",
    "Mish": _TABLE,
    "MultinomialLogisticLoss": _TRAINING,
    "Normalize": "it divides by a norm of the pixel itself, which NVDLA cannot, LRN apart; train without it",
    "Permute": (
        "nothing in NVDLA exchanges axes; before a Flatten or InnerProduct reorder that layer's weights instead, at "
        "the end of the network reorder its output"
    ),
    "PriorBox": _OWN_CODE,
    "Proposal": _OWN_CODE,
    "Reorg": (
        "darknet's takes rows across channels (it counts in the sizes of its output), which no window does; train with "
        "one of blocks, as ONNX's SpaceToDepth, which a Convolution does"
    ),
    "ROIPooling": _OWN_CODE,
    "ReLU6": _CLIP,
    "SELU": _TABLE,
    "ShuffleChannel": _PICK,
    "SigmoidCrossEntropyLoss": "it is for training; use a Sigmoid without the label",
    "Silence": "remove it",
    "Slice": f"for each top {_PICK}",
    "Swish": _TABLE,
    "Threshold": _TABLE,
    "Upsample": (
        "where it repeats pixels, write a Deconvolution with group and num_output of the channels, kernel_size and "
        "stride of the factor, and weights of 1; one with a mask of a pooling (SegNet) cannot run"
    ),
}
"""What to do about some types that are not read."""


def advice(layer: pb.LayerParameter) -> str:
    """Return what to do about a layer of a type that is not read; empty where nothing is known."""
    if layer.type in DATA_TYPES and not layer.bottom:
        lines = " ".join(input_lines(top, layer) for top in layer.top[:1])
        return f"replace it by an Input layer{': ' if lines else ''}{lines}"
    if layer.type == "SoftmaxWithLoss" and layer.bottom:
        line = f'layer {{ name: "prob" type: "Softmax" bottom: "{layer.bottom[0]}" top: "prob" }}'
        return f"it is for training; use a Softmax without the label: {line}"
    return ADVICE.get(layer.type, "")


def input_lines(blob: str, data: pb.LayerParameter) -> str:
    """Return the lines of an Input layer that takes the place of the layer `data`, which writes `blob`."""
    crop = data.transform_param.crop_size
    height, width = (crop, crop) if crop else ("HEIGHT", "WIDTH")
    return (
        f'layer {{ name: "{blob}" type: "Input" top: "{blob}" input_param {{ shape {{ dim: 1 dim: CHANNELS '
        f"dim: {height} dim: {width} }} }} }}"
    )
