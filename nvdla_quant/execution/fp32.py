"""fp32 outputs and activations of a network, with Caffe's semantics, through onnxruntime.

The same images, batch size and processor class give the same bytes; another batch size or processor may differ in the
last bits, since the order of the sums does.
"""

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from nvdla_quant.errors import NetworkError
from nvdla_quant.network.graph import Network, Weights
from nvdla_quant.network.onnx.writer import to_onnx

if TYPE_CHECKING:
    import onnx


class Images(Protocol):
    """Images in the network's own domain: an array of float32, or what makes one of each slice that it is asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, channels, height, width)."""

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """Float32."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __getitem__(self, part: slice, /) -> NDArray[np.float32]:
        """Return a few of them."""


ROOM = 64 << 20
"""Bytes of activations that are computed at once, where nothing asks for whole batches."""


def activation_bytes(network: Network) -> int:
    """Return the bytes of all tensors of one image."""
    return 4 * sum(prod(tensor.shape) for tensor in network.tensors.values())


def images_at_once(network: Network) -> int:
    """Return how many images' tensors fit into `ROOM`: at least one, and at most 64, which are no faster than fewer."""
    return min(max(1, ROOM // activation_bytes(network)), 64)


class Reference:
    """A network ready to run in fp32.

    Parameters
    ----------
    network : Network
        With one input, and its weights.
    tensors : Sequence[str], optional
        Tensors to return, the network's input among them or not; the network's outputs where not given.
    threads : int
        Threads of onnxruntime.
    batch_size : int
        Images computed at once; it bounds the memory.
    packed : bool
        Whether weights are copied once into the order in which they are multiplied: worth it for many images.

    Raises
    ------
    NetworkError
        The network has several inputs, or no tensor of a name that was asked for.
    """

    def __init__(
        self,
        network: Network,
        tensors: Sequence[str] | None = None,
        *,
        threads: int = 1,
        batch_size: int = 64,
        packed: bool = True,
    ) -> None:
        self.network = network
        self.input = network.only_input
        self.tensors = (
            tuple(tensor.name for tensor in network.outputs) if tensors is None else tuple(dict.fromkeys(tensors))
        )
        self.batch_size = batch_size
        self._computed = [name for name in self.tensors if name != self.input.name]
        import onnxruntime  # Here: who only writes the model, for TensorRT, does not wait for it.

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        if not packed:
            options.add_session_config_entry("session.disable_prepacking", "1")
        options.log_severity_level = 3
        # A model needs an output, even where only the input is asked for. What stands apart is kept, as the session
        # reads it in place.
        model, self._apart = self._model(self._computed or None)
        if self._apart:
            held = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in self._apart.values()]
            options.add_external_initializers(list(self._apart), held)
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def _model(self, outputs: Sequence[str] | None) -> tuple["onnx.ModelProto", dict[str, Weights]]:
        apart: dict[str, Weights] = {}
        return to_onnx(self.network, outputs, apart), apart

    def batches(self, images: Images) -> Iterator[dict[str, NDArray[np.float32]]]:
        """Tensors of `batch_size` images at a time (fewer at the end), in order: for what does not fit in memory.

        Parameters
        ----------
        images : Images
            In the network's own domain, after preprocessing.

        Yields
        ------
        dict[str, NDArray[float32]]
            (batch, *shape of the tensor) by tensor name, in the order asked for.

        Raises
        ------
        NetworkError
            The images are not what the network's input takes.
        """
        self.check(images)
        for start in range(0, len(images), self.batch_size):
            yield self.at_once(images[start : start + self.batch_size])

    def check(self, images: Images) -> None:
        """Raise a `NetworkError` where the images are not what the network's input takes."""
        expected = self.input.shape
        if images.shape[1:] != expected or images.dtype != np.float32:
            raise NetworkError(
                f"images have the shape {images.shape} and type {images.dtype}, expected (n, {str(expected)[1:-1]}) of "
                f"float32 for the input {self.input.name!r}"
            )

    def at_once(self, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Tensors of all of `images`, computed at once, as `batches` gives them; several threads may ask at a time."""
        images = np.ascontiguousarray(images)
        results = self._session.run(self._computed, {self.input.name: images}) if self._computed else []
        values = {self.input.name: images, **dict(zip(self._computed, results, strict=True))}
        return {name: values[name] for name in self.tensors}

    def run(self, images: Images) -> dict[str, NDArray[np.float32]]:
        """Tensors of all images: (n, *shape of the tensor) by tensor name; parameters and errors as `batches`."""
        shapes = {name: (len(images), *self.network.tensors[name].shape) for name in self.tensors}
        results = {name: np.empty(shape, np.float32) for name, shape in shapes.items()}
        for index, batch in enumerate(self.batches(images)):
            for name, values in batch.items():
                results[name][index * self.batch_size :][: len(values)] = values
        return results


def scores(network: Network, images: Images, *, threads: int = 1, batch_size: int = 64) -> NDArray[np.float32]:
    """Scores of each image, shape (n, classes): the network's only output, flattened.

    Raises
    ------
    NetworkError
        The network has several outputs, or as `Reference`.
    """
    output = network.only_output
    results = Reference(network, threads=threads, batch_size=batch_size).run(images)
    return results[output.name].reshape(len(images), prod(output.shape))


def scores_and_logits(
    network: Network, images: Images, progress: Callable[[int, int], None] | None = None
) -> dict[str, NDArray[np.float32]]:
    """Output of each image, and the tensor before a final Softmax.

    Parameters
    ----------
    network : Network
        With one input and one output.
    images : Images
        In the network's own domain, after preprocessing.
    progress : callable, optional
        Called with images done and images in all.

    Returns
    -------
    dict[str, NDArray[float32]]
        ``scores`` (n, classes), and ``logits`` (n, classes) where the network ends in a Softmax.
    """
    names = {"scores": network.only_output.name}
    if network.logits is not None:
        names["logits"] = network.logits.name
    found = _tensors(network, list(names.values()), images, progress)
    return {key: found[name].reshape(len(images), -1) for key, name in names.items()}


def outputs_of(
    network: Network, images: Images, progress: Callable[[int, int], None] | None = None
) -> dict[str, NDArray[np.float32]]:
    """Return the outputs of each image, (n, *shape of the tensor), by their blobs: what the network's file calls them.

    Parameters and errors as `scores_and_logits`, of a network with any number of outputs.
    """
    found = _tensors(network, [output.name for output in network.outputs], images, progress)
    return {output.blob: found[output.name] for output in network.outputs}


def _tensors(
    network: Network, names: Sequence[str], images: Images, progress: Callable[[int, int], None] | None
) -> dict[str, NDArray[np.float32]]:
    """Return tensors of all images, as many images at once as keep the memory small."""
    parts: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    done = 0
    for batch in Reference(network, names, batch_size=images_at_once(network)).batches(images):
        for name in names:
            parts[name].append(batch[name])
        done += len(batch[names[0]])
        if progress is not None:
            progress(done, len(images))
    return {name: np.concatenate(values) for name, values in parts.items()}
