"""Export the networks of `modules` by both of PyTorch's exporters.

Usage, from the repository's root, in an environment of its own (see tests/data/exports/README.md for the versions)::

    pip install torch torchvision timm onnx onnxscript onnxruntime
    python -m tests.exports.make FOLDER [NETWORK ...]

writes ``FOLDER/<network>-<opset>-<script|dynamo>.onnx`` and compares each with PyTorch by onnxruntime. Weights
come from a seed; statistics of BatchNorm are those of noise, so that activations neither vanish nor explode.
"""

import argparse
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from tests.exports.modules import NETWORKS, Entry

SEED = 20251
IMAGES = 64
"""Of noise, that the statistics are taken from."""
SHIFT = (1.0, 0.5)
"""Mean and deviation of what BatchNorm adds. Around zero, a deep random network amplifies every small change from layer
to layer, rounding to int8 included, as no trained one does."""
LEAST_VARIANCE = 0.02
"""A channel that the noise leaves nearly dead would be blown up a hundredfold else."""
TOLERANCE = 1e-4
"""Largest difference to PyTorch, in parts of the largest score: sums go in another order."""


@dataclass(frozen=True)
class Export:
    """A way to export.

    Attributes
    ----------
    opset : int
        Version of ONNX's operators.
    dynamo : bool
        PyTorch's newer exporter, or the one by TorchScript.
    free : bool
        The number of images is left open, as most people do.
    plain : bool
        No constant is folded and BatchNorm stays, as older versions of PyTorch have it (exporter by TorchScript alone).
    """

    opset: int
    dynamo: bool
    free: bool = False
    plain: bool = False

    @property
    def name(self) -> str:
        """Ending of a file's name."""
        return f"{self.opset}-{'dynamo' if self.dynamo else 'script'}{'-plain' * self.plain}"


EXPORTS = (
    Export(11, dynamo=False),
    Export(11, dynamo=False, free=True, plain=True),
    Export(13, dynamo=False, free=True),
    Export(17, dynamo=False),
    Export(18, dynamo=True),
    Export(21, dynamo=True, free=True),
)


def noise(entry: Entry, count: int, seed: int) -> Tensor:
    """Images: a coarse pattern and fine grain, about as large as normalised pixels."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, entry.channels, 4, 4, generator=generator)
    fine = torch.randn(count, entry.channels, entry.side, entry.side, generator=generator)
    return nn.functional.interpolate(coarse, entry.side, mode="bilinear") + 0.3 * fine


@torch.no_grad()
def randomise(module: nn.Module, images: Tensor) -> None:
    """Draw all weights; let BatchNorm take its statistics from the images; leave the module ready to be used."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight)
            if part.bias is not None:
                part.bias.normal_(0, 0.05)
        elif isinstance(part, nn.BatchNorm2d):
            part.weight.uniform_(0.5, 1.5)
            part.bias.normal_(*SHIFT)
            part.momentum = 1.0  # The statistics of the one batch, and nothing of what was there.
    module.train()
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.eval()
    module(images)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_var.clamp_(min=LEAST_VARIANCE)
    module.eval()


def build(name: str) -> tuple[nn.Module, Tensor]:
    """Return a network with its weights, and images for it that it has not seen."""
    entry = NETWORKS[name]
    torch.manual_seed(SEED)
    module = entry.make()
    scale, shift = (64.0, 128.0) if name == "assorted" else (1.0, 0.0)  # It takes pixels of 0 to 255.
    randomise(module, noise(entry, IMAGES, SEED) * scale + shift)
    return module, noise(entry, 2, SEED + 1) * scale + shift


def export(module: nn.Module, images: Tensor, how: Export, path: Path) -> None:
    """Write one file."""
    one = (images[:1],)
    names = {"input_names": ["input"], "output_names": ["output"]}
    if how.dynamo:
        shapes = ({0: torch.export.Dim("batch")},) if how.free else None
        # Of one image, the exporter takes the size for a constant.
        example = (images,) if how.free else one
        torch.onnx.export(
            module,
            example,
            str(path),
            **names,
            opset_version=how.opset,
            dynamo=True,
            dynamic_shapes=shapes,
            external_data=False,
            verbose=False,
        )
        return
    mode = torch.onnx.TrainingMode.PRESERVE if how.plain else torch.onnx.TrainingMode.EVAL
    axes = {"input": {0: "batch"}, "output": {0: "batch"}} if how.free else None
    torch.onnx.export(
        module,
        one,
        str(path),
        **names,
        opset_version=how.opset,
        dynamo=False,
        dynamic_axes=axes,
        do_constant_folding=not how.plain,
        training=mode,
    )


def strip(path: Path) -> None:
    """Remove what the newer exporter notes of each node: where in which file of this machine it was written."""
    model = onnx.load(path)
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        del part.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
    onnx.save(model, path)


def difference(module: nn.Module, images: Tensor, path: Path) -> float:
    """Return the largest difference between the file and the module, in parts of the largest score."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    with torch.no_grad():
        expected = module(images).numpy()
    got = np.concatenate([session.run(None, {source.name: images[i : i + 1].numpy()})[0] for i in range(len(images))])
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def main() -> None:
    """Export, compare, and say what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the files go")
    parser.add_argument("networks", nargs="*", help="which networks; all where none is named")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    failed = []
    for name in arguments.networks or NETWORKS:
        module, images = build(name)
        for how in EXPORTS:
            path = arguments.folder / f"{name}-{how.name}.onnx"
            try:
                export(module, images, how, path)
                strip(path)
                error = difference(module, images, path)
            except Exception as problem:
                failed.append(path.name)
                print(f"{path.name}: {type(problem).__name__}: {str(problem).splitlines()[0]}", flush=True)
                continue
            print(f"{path.name}: {path.stat().st_size:,} bytes, differs by {error:.1e}", flush=True)
            if not error < TOLERANCE:
                failed.append(path.name)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
