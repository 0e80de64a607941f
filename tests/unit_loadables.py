"""A small loadable for each operation that NVIDIA's compiler seldom or never emits."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from nvdla_quant.emulator.operations import Cube
from nvdla_quant.loadable.records import Loadable
from nvdla_quant.loadable.structs import DependencyEvent, Engine, PoolMode, RubikMode
from tests.emulated import packed_cube
from tests.loadables import RESULT, SOURCE, Descriptor, Fields, cube_fields, loadable_of, rounded


def single(
    engine: Engine, operation: Fields, source: Cube, result: Cube, tables: tuple[Fields, ...] = (), older: bool = False
) -> Loadable:
    """Return a loadable of one operation from `source` to `result`."""
    surface = cube_fields("src_data", source) | cube_fields("dst_data", result)
    sizes = rounded(source.end), rounded(result.end)
    return loadable_of([Descriptor(engine, operation, surface)], *sizes, tables, older=older)


def copies(*transfers: Fields) -> dict[str, object]:
    """Return the surface of a BDMA operation."""
    fields: dict[str, object] = {"num_transfers": len(transfers)}
    return fields | {f"transfers.{place}.{name}": copy[name] for place, copy in enumerate(transfers) for name in copy}


def copied_then_pooled(
    source: Cube,
    result: Cube,
    pooling: Fields,
    first_surface: Fields | None = None,
    second_surface: Fields | None = None,
    waits: bool = True,
) -> Loadable:
    """Return an SDP operation that changes nothing, and a pooling of what it hands over; surfaces may be changed.

    As the firmware links them: the SDP operation waits until the pooling is enabled, and the pooling until the SDP
    operation is programmed.
    """
    given = cube_fields("src_data", source)
    handed_over = {f"src_data.{field}": given[f"src_data.{field}"] for field in ("width", "height", "channel")}
    first = Descriptor(
        Engine.SDP,
        {"batch_num": 1, "out_cvt.scale": 1, "lut_index": -1},
        given | {"dst_data.type": 2} | (first_surface or {}),
        consumers=((1, DependencyEvent.OP_PROGRAMMED),),
    )
    second = Descriptor(
        Engine.PDP,
        pooling,
        handed_over | {"src_data.type": 2} | cube_fields("dst_data", result) | (second_surface or {}),
        parent=(0, DependencyEvent.OP_ENABLED) if waits else None,
    )
    return loadable_of([first, second], rounded(source.end), rounded(max(source.end, result.end)))


def convolved_twice() -> Loadable:
    """Return two convolutions; the second takes data and weights, which are part of the input, from the buffer."""
    source, first = (packed_cube(memory, (32, 4, 4), 32) for memory in (SOURCE, RESULT))
    flying = {f"dst_data.{name}": value for name, value in (("type", 2), ("width", 4), ("height", 4), ("channel", 32))}
    surface = cube_fields("src_data", source) | flying
    surface |= {"weight_data.address": SOURCE, "weight_data.offset": 512, "weight_data.size": 1024}
    convolution: dict[str, object] = {
        "skip_data_rls": 1, "skip_weight_rls": 1, "data_format": 36, "batch": 1, "data_bank": 1, "weight_bank": 1,
        "out_cvt.scale": 1, "input_width_csc": 4, "input_height_csc": 4, "input_channel_csc": 32, "kernel_width_csc": 1,
        "kernel_height_csc": 1, "kernel_channel_csc": 32, "input_width_cmac": 4, "input_height_cmac": 4,
        "conv_stride_x": 1, "conv_stride_y": 1, "dilation_x": 1, "dilation_y": 1, "release": 2, "entry_per_slice": 1,
    }  # fmt: skip
    rescaled: Fields = {"batch_num": 1, "out_cvt.scale": 3, "out_cvt.truncate": 4, "lut_index": -1}
    descriptors = []
    for index, result in enumerate((first, replace(first, offset=512))):
        descriptors.append(Descriptor(Engine.CONV, convolution, surface))
        handed = {name.replace("dst", "src"): value for name, value in flying.items()} | cube_fields("dst_data", result)
        parent = 2 * index, DependencyEvent.OP_ENABLED
        descriptors.append(Descriptor(Engine.SDP, rescaled, handed, parent=parent))
        convolution = {**convolution, "data_reuse": 1, "weight_reuse": 1}
    return loadable_of(descriptors, 512 + 1024, 1024)


def unit_loadables() -> Mapping[str, Loadable]:
    """Return them by name."""

    def cubes(
        given: tuple[int, int, int], made: tuple[int, int, int], element: int = 1, atoms: tuple[int, int] | None = None
    ) -> tuple[Cube, Cube]:
        first, second = atoms or (32 // element, 32 // element)
        return packed_cube(SOURCE, given, first, element), packed_cube(RESULT, made, second, element)

    rising = np.arange(257)
    bounds = np.array([0.0, 256.0], np.float32).view(np.uint32).tolist()
    integers: Fields = {"linear_exp_table": rising[:65], "linear_only_table": rising, "linear_only_end": 256}
    floats: Fields = {
        "linear_only_table": rising.astype(np.float16).view(np.int16), "linear_only_start": bounds[0],
        "linear_only_end": bounds[1], "hybrid_priority": 1, "method": 1,
    }  # fmt: skip
    normalise: Fields = {"local_size": 5, "in_cvt.scale": 1, "out_cvt.scale": 3, "out_cvt.truncate": 2}
    wide = {"in_precision": 1, "out_precision": 1}
    half = {"in_precision": 2, "out_precision": 2}
    copy: Fields = {
        "source_address": SOURCE, "destination_address": RESULT, "line_size": 64, "line_repeat": 3, "source_line": 96,
        "destination_line": 64, "surface_repeat": 2, "source_surface": 288, "destination_surface": 192,
    }  # fmt: skip
    pool: dict[str, object] = {
        "pool_mode": PoolMode.AVERAGE, "pool_height": 2, "pool_width": 2, "stride_y": 2, "stride_x": 2, "pad_left": 1,
        "pad_top": 1, "split_num": 1, "padding_value": tuple(range(1, 8)),
    }  # fmt: skip
    parts = {
        "split_num": 3, "partial_in_width_first": 4, "partial_in_width_mid": 4, "partial_in_width_last": 4,
        "partial_width_first": 2, "partial_width_mid": 2, "partial_width_last": 2,
    }  # fmt: skip
    contract: Fields = {"mode": RubikMode.CONTRACT, "stride_y": 2, "stride_x": 3}
    return {
        "cdp-int8": single(Engine.CDP, normalise, *cubes((40, 3, 4), (40, 3, 4)), (integers,)),
        "cdp-int16": single(Engine.CDP, {**normalise, **wide}, *cubes((20, 3, 4), (20, 3, 4), 2), (integers,)),
        "cdp-fp16": single(Engine.CDP, {**normalise, **half}, *cubes((20, 3, 4), (20, 3, 4), 2), (floats,)),
        "rubik-contract": single(Engine.RUBIK, contract, *cubes((192, 2, 3), (32, 4, 9))),
        "rubik-split": single(Engine.RUBIK, {"mode": RubikMode.SPLIT}, *cubes((40, 3, 32), (40, 3, 32), 1, (32, 1))),
        "rubik-merge": single(
            Engine.RUBIK, {"mode": RubikMode.MERGE, "precision": 1}, *cubes((20, 3, 16), (20, 3, 16), 2, (1, 16))
        ),
        "bdma": loadable_of([Descriptor(Engine.BDMA, {}, copies(copy, copy))], 576, 384),
        "pdp-parts": single(Engine.PDP, {**pool, **parts}, *cubes((40, 5, 12), (40, 3, 6))),
        "pdp-int16": single(Engine.PDP, {**pool, "precision": 1}, *cubes((20, 5, 5), (20, 3, 3), 2)),
        "pdp-fly": copied_then_pooled(*cubes((40, 5, 5), (40, 3, 3)), pool),
        "conv-twice": convolved_twice(),
        "older": single(Engine.PDP, pool, *cubes((40, 5, 5), (40, 3, 3)), older=True),
    }
