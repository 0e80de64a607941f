"""What a fix by position gets wrong: cache line i taken for layer i of the prototxt, beside names by structure.

``python benchmarks/position_fix.py`` prints, for three generated networks, each layer with the cache entry that either
way gives it.
"""

import tempfile
from pathlib import Path

from google.protobuf import text_format

from nvdla_quant.network.caffe import caffe_pb2 as pb
from nvdla_quant.network.caffe.reader import read_structure
from nvdla_quant.network.views import VIEWS
from nvdla_quant.table.naming import tensor_names

INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }'
LEGACY = 'input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }'
CONV = (
    'layer {{ name: "{0}" type: "Convolution" bottom: "{1}" top: "{0}" '
    "convolution_param {{ num_output: 4 kernel_size: 3 }} }}"
)
IN_PLACE = 'layer {{ name: "{0}" type: "{1}" bottom: "{2}" top: "{2}" }}'
NETWORKS = {
    "legacy input": [LEGACY, CONV.format("c1", "data"), IN_PLACE.format("r1", "ReLU", "c1"), CONV.format("c2", "c1")],
    "Dropout": [
        *(INPUT, CONV.format("c1", "data"), IN_PLACE.format("r1", "ReLU", "c1")),
        *(IN_PLACE.format("d1", "Dropout", "c1"), CONV.format("c2", "c1"), IN_PLACE.format("r2", "ReLU", "c2")),
    ],
    "PReLU": [INPUT, CONV.format("c1", "data"), IN_PLACE.format("p1", "PReLU", "c1"), CONV.format("c2", "c1")],
}


def main() -> None:
    """Print the comparison."""
    print(f"{'network':14}{'layer':8}{'by position':46}{'by structure':46}")
    with tempfile.TemporaryDirectory() as folder:
        for title, lines in NETWORKS.items():
            path = Path(folder) / "deploy.prototxt"
            path.write_text("\n".join(lines))
            network = read_structure(path)
            ours = tensor_names(network)
            cache = list(ours.values())
            if title == "PReLU":  # Its slopes have a line of their own (public documentation; not measured).
                cache.insert(cache.index("c1"), "(Unnamed Layer* 1) [Constant]_output")
            layers = [layer.name for layer in text_format.Parse(path.read_text(), pb.NetParameter()).layer]
            position = dict(zip(layers, cache, strict=False))
            wrong = 0
            for name in layers:
                if name in network.by_name and isinstance(network.by_name[name].operation, VIEWS):
                    continue
                right = position.get(name, "none") == ours[name]
                wrong += not right
                print(f"{title:14}{name:8}{position.get(name, 'none'):46}{ours[name]:46}{'' if right else 'wrong'}")
            print(f"{title:14}{wrong} wrong")


if __name__ == "__main__":
    main()
