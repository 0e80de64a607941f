"""Floating-point numbers for property tests."""

from hypothesis import strategies as st

from tests.fp16_model import Format


def numbers(fmt: Format) -> st.SearchStrategy[int]:
    """Bit patterns of every kind: any, close to 1, at both ends of the exponents, with few bits in the mantissa."""
    last = (1 << fmt.mantissas) - 1
    exponents = st.one_of(
        st.integers(0, fmt.top), st.integers(fmt.bias - 4, fmt.bias + 4), st.integers(0, 3), st.just(fmt.top - 1)
    )
    one_bit = st.integers(0, fmt.mantissas - 1).map(lambda place: 1 << place)
    mantissas = st.one_of(st.integers(0, last), st.sampled_from([0, 1, last, last - 1]), one_bit)
    return st.builds(
        lambda sign, exponent, mantissa: (sign * (fmt.top + 1) + exponent << fmt.mantissas) + mantissa,
        st.integers(0, 1), exponents, mantissas,
    )  # fmt: skip
