"""Take out of an ONNX graph what exporters leave in it, by the passes of onnx-ir and onnxscript.

Functions are written out, shapes inferred, what depends on constants alone is computed, and what nothing reads is
dropped. Their rewrites that fuse operators are not used: each would take the name of a tensor away, which calibration
caches are keyed by.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from nvdla_quant.errors import NetworkError
from nvdla_quant.network.onnx.files.load import one_line
from nvdla_quant.network.onnx.graphs.patterns import join_functions
from nvdla_quant.network.onnx.graphs.quantization import is_quantization, take_quantization
from nvdla_quant.network.onnx.values.names import is_within

_MOST_FOLDED = 2**28
"""Values of all constants together that are computed ahead: 1 GiB of fp32, more than VGG has."""
_ROUNDS = 4
"""Foldings behind one another; each may make shapes known that the next one needs."""


def normalise(model: onnx.ModelProto) -> tuple[ir.Model, tuple[str, ...]]:
    """Return the model, whose inputs have fixed shapes, without exporter noise, and remarks for the user.

    Every value that is left has the name that it has in the file; see `quantization` for the exception.

    Raises
    ------
    NetworkError
        A pass failed on the model.
    """
    # Constants may overflow, whoever computes them; weights that are not finite are told by their readers.
    with _quiet("onnx_ir", "onnxscript"), np.errstate(all="ignore"):
        try:
            graph: ir.Model = ir.from_proto(model)
            common.InlinePass()(graph)
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)
            absorb_identities(graph.graph)
            common.ShapeInferencePass(check_type=False, strict_mode=False)(graph)
            budget = _Budget()
            _fold(graph, budget)
            remarks: tuple[str, ...] = ()
            if any(map(is_quantization, graph.graph)):
                remarks = take_quantization(graph.graph)
                _fold(graph, budget)  # What is computed from weights that were integers.
            join_functions(graph.graph)
            common.RemoveUnusedNodesPass()(graph)
        except NetworkError:
            raise
        except Exception as error:  # Whatever the passes raise on a file that is not what they expect.
            cause = error.__cause__ or error
            raise NetworkError(
                f"cannot be normalised by onnx-ir and onnxscript: {one_line(error)}"
                + (f" ({one_line(cause)})" if isinstance(cause, Exception) and cause is not error else "")
            ) from error
    return graph, remarks


def _fold(graph: ir.Model, budget: "_Budget") -> None:
    """Compute what depends on constants alone, in place, and drop what nothing reads."""
    from onnxscript import optimizer  # Here: it takes a while, and only this function needs it.

    for _ in range(_ROUNDS):
        changed = optimizer.fold_constants_ir(
            graph,
            onnx_shape_inference=True,
            input_size_limit=_MOST_FOLDED,
            output_size_limit=_MOST_FOLDED,
            should_fold=budget.allows,
        ).modified
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)
        common.RemoveUnusedNodesPass()(graph)
        if not changed:
            break


class _Budget:
    """How much may still be computed ahead: a few bytes of a file can ask for any number of values."""

    def __init__(self) -> None:
        self._left = _MOST_FOLDED

    def allows(self, node: ir.Node) -> bool:
        """Whether a node holds no scales and its results are known to be small; their sizes count from now on."""
        if is_quantization(node):
            return False
        total = 0
        for value in node.outputs:
            shape = value.shape
            sizes = () if shape is None else tuple(dim for dim in shape if isinstance(dim, int))
            if shape is None or len(sizes) != len(shape):
                return False
            total += prod(sizes)
        if total > self._left:
            return False
        self._left -= total
        return True


def absorb_identities(graph: ir.Graph) -> None:
    """Let the writer of what an ``Identity`` passes on write the Identity's own result, where only the name differs.

    That is where nothing else reads it, and it is a part of the layer that the result is named after, or the result is
    an output of the graph. Any other Identity is dropped by the constant folding, and its name with it.
    """
    for node in list(graph):
        if node.op_type != "Identity" or node.domain not in ("", "ai.onnx") or len(node.outputs) != 1:
            continue
        inner, outer = node.inputs[0], node.outputs[0]
        if inner is None or inner.producer() is None or inner.is_graph_output() or len(inner.uses()) != 1:
            continue
        if inner.producer().graph is not graph or not (outer.is_graph_output() or is_within(inner.name, outer.name)):  # type: ignore[union-attr]
            continue
        name = outer.name
        ir.convenience.replace_all_uses_with(outer, inner, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        inner.name = name


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Keep libraries from logging what they try in vain: what comes of it is told by the reader."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
