"""Random networks: whatever our compiler makes of them is called right, unless int8 itself is too coarse for them."""

from hypothesis import given, settings

from nvdla_quant.verification.judgement.verdicts import Cause, Judgement
from tests.networks.random import Drawn, Variant, drawn_case, has_long_product, networks, variants
from tests.profiles import examples
from tests.verified import table_is_bad

SAME_COSINE = 0.998
"""Least cosine of scores with an int8 network that rounds where they do."""


@settings(max_examples=examples(100))
@given(networks(), variants())
def test_whatever_we_compile_is_called_right(drawn: Drawn, variant: Variant) -> None:
    case = drawn_case(drawn, variant)
    if case is None:
        return
    verdict = case.verify().verdict
    if verdict.cause is Cause.OVERFLOW:
        return  # Scores that no half holds, which only drawn networks have: their probabilities are not numbers.
    if verdict.verdict is Judgement.TABLE:
        # Roundings where the loadable has them may cost more than those of every layer's tensor.
        same = verdict.simulated is not None and verdict.simulated.cosine >= SAME_COSINE
        assert same or table_is_bad(case, variant.mode) or has_long_product(case.network), verdict
    else:
        assert verdict.verdict is Judgement.OK, verdict
