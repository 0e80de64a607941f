"""Memory on the GPU, by whatever library is there; in Python 3.8, which TensorRT's environments may have."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from nvdla_quant.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Copy = Callable[[NDArray[Any]], None]


class Buffer:
    """Memory on the GPU that numpy arrays are copied to and from; `address` is what TensorRT takes."""

    def __init__(self, address: int, upload: Copy, download: Copy, owner: Any) -> None:
        self.address, self.upload, self.download, self.owner = address, upload, download, owner


def _pycuda(size: int) -> Buffer:
    import pycuda.autoinit  # noqa: F401
    import pycuda.driver as cuda

    memory = cuda.mem_alloc(size)
    return Buffer(
        int(memory),
        lambda array: cuda.memcpy_htod(memory, array),
        lambda array: cuda.memcpy_dtoh(array, memory),
        memory,
    )


def _cuda_python(size: int) -> Buffer:
    try:
        from cuda.bindings import runtime
    except ImportError:
        from cuda import cudart as runtime

    def checked(result: Sequence[Any]) -> Any:
        if int(result[0]) != 0:
            raise ToolError(f"tensorrt: the CUDA runtime reports error {int(result[0])}")
        return result[1] if len(result) > 1 else None

    address = int(checked(runtime.cudaMalloc(size)))
    kind = runtime.cudaMemcpyKind

    def upload(array: NDArray[Any]) -> None:
        checked(runtime.cudaMemcpy(address, array.ctypes.data, array.nbytes, kind.cudaMemcpyHostToDevice))

    def download(array: NDArray[Any]) -> None:
        checked(runtime.cudaMemcpy(array.ctypes.data, address, array.nbytes, kind.cudaMemcpyDeviceToHost))

    return Buffer(address, upload, download, None)


def _cupy(size: int) -> Buffer:
    import cupy

    memory = cupy.empty(size, dtype=np.uint8)

    def upload(array: NDArray[Any]) -> None:
        memory[: array.nbytes].set(np.frombuffer(array, np.uint8))

    def download(array: NDArray[Any]) -> None:
        array.view(np.uint8).reshape(-1)[:] = memory[: array.nbytes].get()

    return Buffer(int(memory.data.ptr), upload, download, memory)


def _torch(size: int) -> Buffer:
    import torch

    if not torch.cuda.is_available():
        raise ImportError("torch without CUDA")
    memory = torch.empty(size, dtype=torch.uint8, device="cuda")

    def upload(array: NDArray[Any]) -> None:
        memory[: array.nbytes].copy_(torch.from_numpy(np.frombuffer(array, np.uint8).copy()))
        torch.cuda.synchronize()

    def download(array: NDArray[Any]) -> None:
        array.view(np.uint8).reshape(-1)[:] = memory[: array.nbytes].cpu().numpy()

    return Buffer(int(memory.data_ptr()), upload, download, memory)


def _libcuda(size: int) -> Buffer:
    driver = ctypes.CDLL("libcuda.so.1")

    def checked(status: int) -> None:
        if status != 0:
            raise ToolError(f"tensorrt: the CUDA driver reports error {status}; is a GPU visible here?")

    device, context, address = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    checked(driver.cuInit(0))
    checked(driver.cuDeviceGet(ctypes.byref(device), 0))
    # The primary context is the one that the CUDA runtime, and so TensorRT, works in.
    checked(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    checked(driver.cuCtxSetCurrent(context))
    checked(driver.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size)))

    def upload(array: NDArray[Any]) -> None:
        data = ctypes.c_void_p(array.ctypes.data)
        checked(driver.cuMemcpyHtoD_v2(address, data, ctypes.c_size_t(array.nbytes)))

    def download(array: NDArray[Any]) -> None:
        data = ctypes.c_void_p(array.ctypes.data)
        checked(driver.cuMemcpyDtoH_v2(data, address, ctypes.c_size_t(array.nbytes)))

    return Buffer(int(address.value), upload, download, None)


def allocate(size: int) -> Buffer:
    """Return `size` bytes on the GPU, by the first of pycuda, cuda-python, cupy, torch and the driver that is there.

    Raises
    ------
    ToolError
        None is, or the GPU refuses.
    """
    absent = []
    for way in (_pycuda, _cuda_python, _cupy, _torch, _libcuda):
        try:
            return way(size)
        except (ImportError, OSError) as error:  # noqa: PERF203
            absent.append("{}: {}".format(way.__name__.strip("_"), error))
    raise ToolError("tensorrt: no way to GPU memory; {}; install pycuda or cuda-python".format("; ".join(absent)))
