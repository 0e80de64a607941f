"""What one convolution leaves in the buffer to the next: the same numbers as if it were read, and what is refused."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nvdla_quant.emulator.decode.program import Program, decode
from nvdla_quant.emulator.operations import ConvOperation, SdpOperation, cubes_fetched
from nvdla_quant.emulator.run import run_tensors
from nvdla_quant.errors import EmulationError
from nvdla_quant.hardware.targets import NV_FULL, Target
from nvdla_quant.loadable.records import Loadable, TensorDescriptor
from tests.descriptors import loadable_of
from tests.unit.emulator import test_emulator_winograd as winograd
from tests.unit.emulator.test_emulator_descriptors import (
    INPUT,
    OUTPUT,
    WEIGHTS,
    Case,
    cases,
    entries_of,
    expected_of,
    inputs_of,
    parts_of,
)

Parts = tuple[list[Any], dict[int, Any], TensorDescriptor, TensorDescriptor]
LEAVES = {"skip_data_rls": 1, "skip_weight_rls": 1}
ROOM = {"weight_bank": 8}
"""Banks for the largest weights that are drawn: those that do not fit cannot stay."""
TAKES_DATA, TAKES_WEIGHTS = {"data_reuse": 1}, {"weight_reuse": 1}


def moved(fields: Mapping[str, Any], places: Mapping[int, int]) -> dict[str, Any]:
    """Return `fields` with other addresses."""
    return {
        name: moved(value, places)
        if isinstance(value, Mapping)
        else places.get(value, value)
        if name == "address"
        else value
        for name, value in fields.items()
    }


def joined(parts: list[Parts], shared: tuple[int, ...] = (INPUT,)) -> Loadable:
    """Return the loadable of several convolutions, one after the other, that share the memories `shared`.

    The outputs are called ``out0``, ``out1``, ...
    """
    operations, memories, results = list(parts[0][0]), dict(parts[0][1]), []
    results.append(replace(parts[0][3], name="out0"))
    for number, (more, own, _, result) in enumerate(parts[1:], 1):
        free = max(memories) + 1
        places = {memory: free + i for i, memory in enumerate(m for m in sorted(own) if m not in shared)}
        memories |= {places[memory]: contents for memory, contents in own.items() if memory in places}
        operations += [(engine, fields, moved(surface, places)) for engine, fields, surface in more]
        place = places[OUTPUT]
        results.append(replace(result, name=f"out{number}", id=place, mem_id=place))
    return loadable_of(operations, memories, [parts[0][2]], results)


def conv_fields(parts: Parts, fields: Mapping[str, Any], surface: Mapping[str, Any] | None = None) -> Parts:
    """Return `parts`, which are for nv_full, with other fields of the convolution, and of its source."""
    (engine, op, surfaces), *rest = parts[0]
    source = {**surfaces["src_data"], **(surface or {})}
    op = {**op, **fields}
    op |= {"entry_per_slice": entries_of(op, NV_FULL)}
    changed = engine, op, {**surfaces, "src_data": source}
    return [changed, *rest], *parts[1:]


def convolutions(program: Program) -> list[ConvOperation]:
    """Return the convolutions of a program."""
    sources = [operation.source for operation in program.operations if isinstance(operation, SdpOperation)]
    return [source for source in sources if isinstance(source, ConvOperation)]


def on_target(case: Case) -> Case:
    """Return `case` with an output that its target has."""
    return case if case.target is NV_FULL else replace(case, output="int8")


@st.composite
def variants(draw: st.DrawFn, case: Case) -> Case:
    """Return another convolution of the same data."""
    image = case.pixels is not None
    pad = draw(st.integers(0, 2)), case.pad[1] if image else draw(st.integers(0, 2))
    return replace(
        case,
        kernels=draw(st.sampled_from([1, 5, 17, 33])),
        kernel=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        out=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        stride=(draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        dilation=(1, 1) if image else (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        pad=pad,
        pad_value=case.pad_value if image else draw(st.integers(-(1 << 15), (1 << 15) - 1)),
        compressed=draw(st.booleans()) and case.target is NV_FULL,
        seed=draw(st.integers(0, 1 << 30)),
    )


def check(loadable: Loadable, target: Target, all_cases: list[Case], inputs: list[NDArray[Any]]) -> Program:
    """Run a loadable on the first of `inputs`, and compare each output with the scalar model's on its own input."""
    program = decode(loadable, target)
    results = run_tensors(program, {"in": inputs[0]})
    for number, (case, given_to) in enumerate(zip(all_cases, inputs, strict=True)):
        np.testing.assert_array_equal(results[f"out{number}"], expected_of(case, given_to), f"output {number}")
    return program


@given(st.data(), cases(), st.booleans())
def test_all_data(data: st.DataObject, first: Case, reads_elsewhere: bool) -> None:
    """Three convolutions of any precision, format, batch and converter; only the first reads."""
    first = on_target(first)
    all_cases = [first, data.draw(variants(first)), data.draw(variants(first))]
    # What CDMA pads an image with stands in the buffer, so it is one number for all.
    need = [(c.out[1] - 1) * c.stride[1] + c.kernel[1] - c.pad[1] - c.size[1] for c in all_cases]
    right = {"pad_x_right": max(*need, 0)}
    fields = LEAVES | ROOM | right
    parts = [parts_of(case, fields | (TAKES_DATA if i else {}), {}) for i, case in enumerate(all_cases)]
    shared = () if reads_elsewhere else (INPUT,)
    loadable = joined(parts, shared)
    inputs = inputs_of(first, decode(joined(parts[:1]), first.target))
    program = check(loadable, first.target, all_cases, [inputs] * 3)
    weights = [len(convolution.weight_windows) for convolution in convolutions(program)]
    assert [len(cubes_fetched(c)) for c in convolutions(program)][1:] == weights[1:]
    assert len([text for text in program.warnings if "its own src_data is not read" in text]) == 2 * reads_elsewhere


@given(st.data(), st.sampled_from([None, "A8B8G8R8", "A16B16G16R16"]), st.integers(0, 1 << 30))
def test_rows_that_are_left(data: st.DataObject, pixels: str | None, seed: int) -> None:
    """Each convolution takes the rows that the one before did not release, and reads those behind them."""
    precision = "int16" if pixels == "A16B16G16R16" else "int8"
    heights = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=3))
    channels = 4 if pixels else data.draw(st.sampled_from([3, 32, 70]))
    whole = Case(
        given=precision, precision=precision, output=precision, pixels=pixels, channels=channels,
        size=(sum(heights), 5), pad=(data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2))), seed=seed,
    )  # fmt: skip
    inputs = inputs_of(whole, decode(joined([parts_of(whole, {}, {})])))
    line = parts_of(whole, {}, {})[0][0][2]["src_data"]["line_stride"]
    parts, all_cases, seen = [], [], []
    top, bottom = 0, 0
    for number, height in enumerate(heights):
        start, bottom = bottom, bottom + height
        case = data.draw(variants(whole))
        need = (case.out[1] - 1) * case.stride[1] + case.kernel[1] - case.pad[1] - 5
        assume(pixels is None or need <= 4)
        case = replace(case, compressed=False, size=(bottom - top, 5))
        release = data.draw(st.integers(1, bottom - top))
        fields = {"release": release, "input_height_csc": bottom - top, "data_reuse": int(number > 0), "pad_x_right": 4}
        surface = {"offset": start * line, "height": height}
        parts.append(conv_fields(parts_of(replace(case, size=whole.size), {}, {}), fields, surface))
        all_cases.append(case)
        rows = slice(top * line, bottom * line) if pixels else slice(None)
        seen.append(np.ascontiguousarray(inputs[..., rows]) if pixels else inputs[:, :, top:bottom])
        top += release
    program = decode(joined(parts))
    results = run_tensors(program, {"in": inputs})
    for number, (case, part) in enumerate(zip(all_cases, seen, strict=True)):
        np.testing.assert_array_equal(results[f"out{number}"], expected_of(case, part), f"output {number}")


@given(st.data(), cases(), st.booleans())
def test_weights(data: st.DataObject, first: Case, elsewhere: bool) -> None:
    """The second convolution has the weights of the first, compressed or not, whatever its own address holds."""
    first = on_target(first)
    second = replace(data.draw(variants(first)), kernels=first.kernels, kernel=first.kernel, seed=first.seed)
    first = replace(first, compressed=second.compressed)
    need = [(c.out[1] - 1) * c.stride[1] + c.kernel[1] - c.pad[1] - c.size[1] for c in (first, second)]
    fields = LEAVES | ROOM | {"pad_x_right": max(*need, 0)}
    parts = [parts_of(first, fields, {}), parts_of(second, fields | TAKES_WEIGHTS, {})]
    if elsewhere:
        parts[1][1][WEIGHTS] = np.zeros_like(parts[1][1][WEIGHTS])
    loadable = joined(parts, (INPUT,) if elsewhere else (INPUT, WEIGHTS, 5, 6))
    inputs = inputs_of(first, decode(joined(parts[:1]), first.target))
    program = check(loadable, first.target, [first, second], [inputs] * 2)
    assert len(cubes_fetched(convolutions(program)[1])) == len(convolutions(program)[1].planes)
    assert any("its own weight_data are not read" in text for text in program.warnings) is elsewhere


@pytest.mark.parametrize("dtype", [np.int16, np.float16])
def test_winograd(dtype: type[np.int16] | type[np.float16]) -> None:
    """Data and weights stay for a second convolution, which has a bias of its own; the first is as without."""
    rng = np.random.default_rng(0)
    weights = rng.integers(-9, 10, (5, 4, 4, 32)).astype(dtype)
    shape = 16, (7, 14), (1, 1), (1, 2), (1, 1), 3, 0, 2
    first = winograd.parts_of(weights, *shape, fields=LEAVES)
    second = winograd.parts_of(weights, *shape, fields=LEAVES | TAKES_DATA | TAKES_WEIGHTS)
    second[1][winograd.WEIGHTS] = np.zeros_like(second[1][winograd.WEIGHTS])
    program = decode(joined([first, second]))
    inputs = rng.integers(-9, 10, (2, 16, 7, 14)).astype(dtype)
    results = run_tensors(program, {"in": inputs})
    assert np.any(results["out0"])
    np.testing.assert_array_equal(results["out0"], results["out1"])
    assert cubes_fetched(convolutions(program)[1]) == ()


@pytest.mark.parametrize(
    ("fields", "flag", "message"),
    [
        ({"data_bank": 2}, TAKES_DATA, "data_reuse does nothing, for data_bank or the kind"),
        ({"data_bank": 2}, TAKES_WEIGHTS, "weight_reuse does nothing, for data_bank or weight_bank"),
        ({"weight_bank": 2}, TAKES_WEIGHTS, "weight_reuse does nothing, for data_bank or weight_bank"),
    ],
)
def test_flags_that_do_nothing(fields: dict[str, int], flag: dict[str, int], message: str) -> None:
    """With other banks nothing is left: the convolution reads its own source and weights."""
    first = Case(seed=1)
    second = replace(first, seed=2)
    parts = [parts_of(first, LEAVES, {}), parts_of(second, flag | fields, {})]
    inputs = inputs_of(first, decode(joined(parts[:1])))
    program = check(joined(parts), NV_FULL, [first, second], [inputs] * 2)
    assert [message in text for text in program.warnings] == [True]


def test_nothing_is_left_of_what_was_released() -> None:
    """All rows of the first are released, so the second reads its own source, of whatever size."""
    first, second = Case(seed=1), Case(size=(4, 4), seed=2)
    parts = [parts_of(first, {"release": 4}, {}), parts_of(second, TAKES_DATA, {})]
    program = decode(joined(parts))
    assert [convolution.kept_rows for convolution in convolutions(program)] == [0, 0]
    assert program.warnings == ()


def test_another_kind_of_convolution_reads_its_own_data() -> None:
    first, second = Case(seed=1), Case(pixels="A8B8G8R8", seed=2)
    parts = [parts_of(first, LEAVES, {}), parts_of(second, TAKES_DATA, {})]
    program = decode(joined(parts, ()))
    assert "data_reuse does nothing" in program.warnings[0]
    assert convolutions(program)[1].kept_rows == 0


DATA, KERNELS = LEAVES | TAKES_DATA, LEAVES | TAKES_WEIGHTS


@pytest.mark.parametrize(
    ("given_to", "fields", "message"),
    [
        ({}, TAKES_DATA | {"weight_bank": 2}, r"weight_bank is 2, expected 1, which operation 0 has, whose data"),
        ({}, TAKES_DATA | {"input_width_csc": 4}, r"input_width_csc is 4, expected 5, which operation 0 has"),
        ({}, TAKES_DATA | {"input_height_csc": 3}, r"input_height_csc is 3, expected 4"),
        ({}, TAKES_DATA | {"entry_per_slice": 7}, r"entry_per_slice is 7, expected 2"),
        ({}, TAKES_DATA | {"in_cvt": {"enable": 1, "scale": 3}}, r"in_cvt is \(3, 0, 1, 0\), expected \(1, 0, 0, 0\)"),
        ({"skip_data_rls": 0}, TAKES_DATA, r"release of operation 0, whose data it reuses is 0, expected 1 to 4"),
        ({"skip_data_rls": 0, "release": 5}, TAKES_DATA, r"release of operation 0, .* is 5, expected 1 to 4"),
        (
            {"skip_data_rls": 0, "release": 2},
            TAKES_DATA,
            r"place is byte 0 of .* expected byte 640 of memory 1",
        ),
        ({"skip_weight_rls": 0}, TAKES_WEIGHTS, r"skip_weight_rls of operation 0 is 0, expected 1"),
        (
            {},
            TAKES_WEIGHTS | {"kernel_height_csc": 1},
            r"kernel_height_csc is 1, expected 2, .* whose weights",
        ),
        ({}, TAKES_WEIGHTS | {"weight_format": 1}, r"weight_format is 1, expected 0"),
        ({"skip_data_rls": 2}, {}, r"skip_data_rls is 2, expected 0 or 1, all that the register holds"),
    ],
)
def test_refusals(given_to: dict[str, int], fields: dict[str, Any], message: str) -> None:
    parts = [parts_of(Case(), LEAVES | given_to, {}), parts_of(Case(), fields, {})]
    with pytest.raises(EmulationError, match=message):
        decode(joined(parts))


@pytest.mark.parametrize("flag", ["data_reuse", "weight_reuse"])
def test_nothing_is_known_before_the_first(flag: str) -> None:
    with pytest.raises(EmulationError, match=rf"operation 0 \(CONV\): {flag} is 1, expected 0: it is the first"):
        decode(joined([parts_of(Case(), {flag: 1}, {})]))


def test_other_kernels_are_refused() -> None:
    parts = [parts_of(Case(kernels=kernels), LEAVES | TAKES_WEIGHTS, {}) for kernels in (5, 6)]
    parts[0] = parts_of(Case(), LEAVES, {})
    with pytest.raises(EmulationError, match=r"dst channel is 6, expected 5, which operation 0 has, whose weights"):
        decode(joined(parts))


def test_weights_of_another_kind_are_refused() -> None:
    """The C-model reads them anew, the RTL does not."""
    parts = [parts_of(Case(), LEAVES, {}), parts_of(Case(pixels="A8B8G8R8"), TAKES_WEIGHTS, {})]
    with pytest.raises(EmulationError, match=r"weight_reuse is 1, expected 0: operation 0 is no convolution of image"):
        decode(joined(parts, ()))


def test_rows_of_a_batch_are_refused() -> None:
    parts = [parts_of(Case(batch=2), {"release": 2} | fields, {}) for fields in ({}, TAKES_DATA)]
    with pytest.raises(EmulationError, match=r"skip_data_rls of operation 0, .* is 0, expected 1: with Winograd and"):
        decode(joined(parts))


def test_weights_must_fit_to_stay() -> None:
    """A bank holds 32 KiB: 33 kernels of 2 x 2 x 70 in int16 are more with 256 channels."""
    case = Case(given="int16", precision="int16", output="int16", kernels=33, channels=256)
    with pytest.raises(EmulationError, match=r"weight size with skip_weight_rls is 67584, expected at most 32768"):
        decode(joined([parts_of(case, LEAVES, {})]))


@pytest.mark.parametrize("flag", [TAKES_DATA, TAKES_WEIGHTS])
def test_what_was_written_over_is_refused(flag: dict[str, int]) -> None:
    """The first result goes where its source, or its weights, stand; the buffer still has what was there."""
    case = Case(channels=32, kernels=32, kernel=(1, 1), out=(4, 5))
    parts = [parts_of(case, LEAVES | fields, {}) for fields in ({}, flag)]
    (engine, fields, surface), memory = parts[0][0][1], INPUT if flag is TAKES_DATA else WEIGHTS
    changed = engine, fields, {**surface, "dst_data": {**surface["dst_data"], "address": memory}}
    parts[0] = ([parts[0][0][0], changed], *parts[0][1:])
    with pytest.raises(EmulationError, match=r"operation 2 \(CONV\): reuses data or weights that operation 1 \(SDP\)"):
        decode(joined(parts, (INPUT, WEIGHTS)))
