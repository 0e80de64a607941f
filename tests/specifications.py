"""Specifications of NVDLA as text, and a strategy of legal ones."""

from collections.abc import Mapping

from hypothesis import strategies as st

from nvdla_quant.hardware.spec import parse_spec
from nvdla_quant.hardware.targets import Precision, Target

PARTS = {
    "SDP_EW": "y", "SDP_LUT": "lut", "BDMA": "bdma", "RUBIK": "rubik", "WINOGRAD": "winograd",
    "WEIGHT_COMPRESSION": "weight_compression", "BATCH": "batch", "PDP": "pdp", "CDP": "cdp",
}  # fmt: skip


def values_of(target: Target) -> dict[str, str]:
    """Return what a specification of `target` says."""
    words = 2 if Precision.FP16 in target.precisions else 1
    values = {part: "ENABLE" if getattr(target, f"has_{unit}") else "DISABLE" for part, unit in PARTS.items()}
    values |= {"SDP_BS": "ENABLE", "SDP_BN": "ENABLE", "SECONDARY_MEMIF": "ENABLE" if target.secondary else "DISABLE"}
    values |= dict.fromkeys(("RUBIK_CONTRACT", "RUBIK_RESHAPE"), values["RUBIK"])
    if words == 1:
        values |= {"FEATURE_DATA_TYPE": "INT8", "WEIGHT_DATA_TYPE": "INT8", "RETIMING": "DISABLE"}
        values |= {"MEM_ADDRESS_WIDTH": str(target.address_bits), "NUM_DMA_READ_CLIENTS": "7"}
    numbers: dict[str, int | str] = {
        "MAC_ATOMIC_C_SIZE": target.atomic_c,
        "MAC_ATOMIC_K_SIZE": target.atomic_k,
        "MEMORY_ATOMIC_SIZE": target.feature_atom_bytes,
        "MAX_BATCH_SIZE": 32 if target.has_batch else "x",
        "CBUF_BANK_NUMBER": target.cbuf_banks,
        "CBUF_BANK_WIDTH": target.cbuf_entry_bytes // words,
        "CBUF_BANK_DEPTH": target.cbuf_bank_entries * words,
        "SDP_BS_THROUGHPUT": target.rates.x1,
        "SDP_BN_THROUGHPUT": target.rates.x2,
        "SDP_EW_THROUGHPUT": target.rates.y or "x",
        "PDP_THROUGHPUT": target.rates.pooling or "x",
        "CDP_THROUGHPUT": target.rates.normalisation or "x",
    }
    for name, interface in (("PRIMARY", target.memory), ("SECONDARY", target.secondary)):
        for field, value in (("WIDTH", "bits"), ("MAX_BURST_LENGTH", "burst"), ("LATENCY", "latency")):
            numbers[f"{name}_MEMIF_{field}"] = "x" if interface is None else getattr(interface, value)
    return values | {name: str(number) for name, number in numbers.items()}


def text_of(values: Mapping[str, str]) -> str:
    """Return a specification that says `values`, as nvdla/hw writes it."""
    lines = [f"#define {name}_{value}" for name, value in values.items()]
    return "\n".join(["//#define NV_OWN 1", *lines, "", '#include "projects.spec"', ""])


@st.composite
def legal_values(draw: st.DrawFn) -> dict[str, str]:
    """Legal int8 specifications: atoms 8 to 64, banks 8 to 32, units on and off."""
    atomic_k = draw(st.sampled_from([8, 16, 32, 64]))
    atomic_c = draw(st.sampled_from([c for c in (8, 16, 32, 64) if c // atomic_k in (1, 2, 4)]))
    y = draw(st.booleans())
    on = {
        "SDP_EW": y, "SDP_LUT": y and draw(st.booleans()), "PDP": draw(st.booleans()), "CDP": draw(st.booleans()),
        "BATCH": draw(st.booleans()), "SECONDARY_MEMIF": draw(st.booleans()),
    }  # fmt: skip
    on |= dict.fromkeys(("RUBIK", "RUBIK_CONTRACT", "RUBIK_RESHAPE"), draw(st.booleans()))
    on |= {"SDP_BS": True, "SDP_BN": True, "BDMA": False, "WINOGRAD": False, "WEIGHT_COMPRESSION": False}
    values = {name: "ENABLE" if enabled else "DISABLE" for name, enabled in on.items()}
    values |= {"FEATURE_DATA_TYPE": "INT8", "WEIGHT_DATA_TYPE": "INT8", "MEMORY_ATOMIC_SIZE": str(atomic_k)}
    values |= {"MAC_ATOMIC_C_SIZE": str(atomic_c), "MAC_ATOMIC_K_SIZE": str(atomic_k)}
    values |= {
        "CBUF_BANK_NUMBER": draw(st.sampled_from(["8", "16", "32"])),
        "CBUF_BANK_WIDTH": str(atomic_c),
        "CBUF_BANK_DEPTH": draw(st.sampled_from(["64", "128", "256", "512"])),
        "MAX_BATCH_SIZE": "32" if on["BATCH"] else "x",
    }
    for name, part in (("SDP_BS", ""), ("SDP_BN", ""), ("SDP_EW", "SDP_EW"), ("PDP", "PDP"), ("CDP", "CDP")):
        values[f"{name}_THROUGHPUT"] = draw(st.sampled_from(["1", "2", "4"])) if not part or on[part] else "x"
    for name in ("PRIMARY", "SECONDARY"):
        there = name == "PRIMARY" or on["SECONDARY_MEMIF"]
        values |= {f"{name}_MEMIF_WIDTH": "64" if there else "x", f"{name}_MEMIF_LATENCY": "64" if there else "x"}
        values[f"{name}_MEMIF_MAX_BURST_LENGTH"] = "1" if there else "x"
    return values


@st.composite
def legal_targets(draw: st.DrawFn) -> Target:
    """Targets of `legal_values`."""
    return parse_spec(text_of(draw(legal_values())), "own", "own.spec")
