"""The answer on the first screen: what is named, and that no more is claimed than the images show."""

from dataclasses import replace

import pytest

from nvdla_quant.report.recommendation.answers import closing, glance, recommend
from tests.unit.report.reported import LOST, lines_of, sweep_evidence


def test_the_best_int8_where_the_images_cannot_tell_it_from_fp16() -> None:
    """Two images of 200 lost: p = 2 * 0.5 ** 2 = 0.5 beside fp32; per-kernel loses 20 and 40."""
    (answer,) = recommend(sweep_evidence())
    assert answer.choice is not None
    assert answer.choice["group"] == "int8-filter"
    assert answer.headline == "Use int8 per-filter with 8 calibration images (int8-filter)."
    text = " ".join(answer.reasons)
    assert "99.00 % of 200 test images right, fp32 100.00 %" in text
    assert "0 won, 2 lost, p = 0.50" in text
    assert "not significant, which does not prove them equal" in text
    assert "Significantly less accurate than the best: int8-kernel." in text
    assert "significantly better in 1 and worse in 0 of 1 pairs" in text
    assert "Left out, since the output is wrong: int8-broken" in text
    assert "compiled by builtin, run on emulator; bit-exact" in text


def test_nothing_is_ranked_that_the_images_do_not_rank() -> None:
    (answer,) = recommend(sweep_evidence({"int8-kernel": 1, "int8-filter": 2}))
    assert answer.choice is not None
    # The one that agrees with fp32 on more images, and the other will do as well.
    assert answer.choice["group"] == "int8-kernel"
    assert any("do not tell it from 1 of the 1 others (int8-filter" in reason for reason in answer.reasons)


def test_what_is_not_verified_is_not_wrong() -> None:
    """It is named, with the reason, where nothing else is as good."""
    (answer,) = recommend(sweep_evidence(unverified=("int8-filter",)))
    assert answer.choice is not None
    assert answer.headline == ("Use int8 per-filter with 8 calibration images (int8-filter), which is not verified.")
    assert any(reason.startswith("Not verified: not-understood what is operation 3?.") for reason in answer.reasons)
    assert "Left out, since the output is wrong: int8-broken;" in " ".join(answer.reasons)
    assert not any("Not verified" in reason for reason in recommend(sweep_evidence())[0].reasons)


def test_what_is_verified_comes_first() -> None:
    """The other agrees with fp32 on one image more, which these images do not tell apart; both are named."""
    lost = {"int8-kernel": 1, "int8-filter": 2}
    (answer,) = recommend(sweep_evidence(lost, unverified=("int8-kernel",)))
    assert answer.choice is not None
    assert answer.choice["group"] == "int8-filter"
    assert any("Passed over, since they are not verified: int8-kernel;" in reason for reason in answer.reasons)


def test_fp16_where_int8_costs_too_much() -> None:
    (answer,) = recommend(sweep_evidence({"fp16": 0, "int8-filter": 30}))
    assert answer.choice is not None
    assert answer.choice["group"] == "fp16"
    assert any("int8 costs too much here: the best of it, int8-filter" in reason for reason in answer.reasons)


def test_a_loss_that_is_significant_is_said_to_be() -> None:
    """8 of 200 lost: p = 2 * 0.5 ** 8 = 0.0078; there is no fp16 to turn to."""
    (answer,) = recommend(sweep_evidence({"int8-filter": 8}))
    assert "p = 0.0078). That is significant. It does not keep" in answer.reasons[0]


def test_targets_with_the_same_answer_share_it() -> None:
    answers = recommend(sweep_evidence(LOST, ("nv_large", "nv_small")))
    assert [answer.targets for answer in answers] == [("nv_large", "nv_small")]


def test_no_answer_where_every_output_is_wrong() -> None:
    (answer,) = recommend(sweep_evidence({}))
    assert answer.choice is None
    assert answer.headline == "No variant gives a right output that can be compared."


@pytest.mark.parametrize(("lost", "said"), [(0, "It keeps 99 %"), (40, "It does not keep 99 %"), (2, "Too few images")])
def test_the_bar_of_99_percent(lost: int, said: str) -> None:
    """Agresti and Min for no flips of 200: plus and minus 1.96 / 202 = 0.97 points."""
    (answer,) = recommend(sweep_evidence({"int8-filter": lost}))
    assert said in answer.reasons[0]


def test_more_calibration_images_where_it_makes_no_difference() -> None:
    """The same variant calibrated with 4 images agrees with fp32 no less."""
    evidence = sweep_evidence({"int8-filter": 0, "int8-kernel": 1})
    few = evidence.groups["group"] == "int8-filter"
    groups = evidence.groups.assign(
        images=evidence.groups["images"].mask(few, 4), series=evidence.groups["series"].mask(few, "int8-kernel")
    )
    (answer,) = recommend(replace(evidence, groups=groups))
    assert answer.choice is not None
    assert (answer.choice["group"], answer.choice["images"]) == ("int8-kernel", 8)


def test_the_end_of_a_run() -> None:
    """Two seeds, 90 and 80 % right."""
    seeds, answer = closing(sweep_evidence()).splitlines()
    assert seeds == "2 seeds: lenet on mnist, nv_full int8-kernel: 85.00 % (sd 7.07, 80.00 to 90.00)"
    assert answer == "lenet on mnist, nv_full: Use int8 per-filter with 8 calibration images (int8-filter)."


def test_at_a_glance() -> None:
    """Targets with the same numbers share a line, though one has fp16 beside it and so other reasons."""
    both = recommend(sweep_evidence(LOST, ("nv_full", "nv_small")))
    (line,) = lines_of(glance(both))
    assert line[:7] == ("lenet on mnist", "nv_full, nv_small", "int8-filter", "200", "99.00", "100.00", "-1.00")
    (line,) = lines_of(glance(recommend(sweep_evidence({}))))
    assert line == ("lenet on mnist", "nv_full", "none", *[""] * 7)


def test_the_best_is_the_one_that_was_compared_with() -> None:
    """Two variants with the same hits, whose means differ in the last bit in the other direction."""
    evidence = sweep_evidence({"int8-kernel": 2, "int8-filter": 2, "int8-third": 40})
    pairs = evidence.comparisons
    averaged = (pairs["kind"] == "fp32") & pairs["score_step"].isna() & (pairs["variant"] == "int8-filter")
    nudged = pairs.assign(top1=pairs["top1"].mask(averaged, pairs["top1"] + 1e-10))
    (answer,) = recommend(replace(evidence, comparisons=nudged))
    assert any("do not tell it from 1 of the 2 others" in reason for reason in answer.reasons)
    assert any("less accurate than the best: int8-third" in reason for reason in answer.reasons)


SPEEDS: dict[str, int | None] = {"fp16": 2000, "int8-filter": 1000, "int8-kernel": 1500}
"""Cycles at 1 MHz."""


def test_the_fastest_that_keeps_the_accuracy() -> None:
    """All three have every image right: of int8 the faster one is named, and how much longer the others take."""
    lost = dict.fromkeys(SPEEDS, 0)
    (answer,) = recommend(sweep_evidence(lost, cycles=SPEEDS))
    assert answer.choice is not None
    assert answer.choice["group"] == "int8-filter"
    assert answer.headline.endswith("(int8-filter), the fastest that keeps 99 % of fp32's accuracy.")
    (said,) = answer.times
    assert said.startswith(
        "nv_full: 1 ms an image (1,000 cycles, MACs for the most part); fp16 takes 2.00 times as long"
    )
    assert "int8-kernel takes 1.50 times as long (MACs for the most part)." in said


def test_the_accuracy_that_is_asked_for_decides() -> None:
    """30 of 200 lost are 85 % of fp32's accuracy, 80 % at the lower end: the fast one does for 75 %, not for 99 %."""
    lost = {"fp16": 0, "int8-filter": 30, "int8-kernel": 0}
    evidence = sweep_evidence(lost, cycles=SPEEDS)
    (strict,), (loose,) = recommend(evidence), recommend(evidence, 75.0)
    assert strict.choice is not None
    assert strict.choice["group"] == "int8-kernel"
    assert "int8-filter takes 0.67 times as long, but it does not keep the accuracy" in strict.times[0]
    assert loose.choice is not None
    assert loose.choice["group"] == "int8-filter"
    assert loose.headline.endswith("the fastest that keeps 75 % of fp32's accuracy.")
    said = (
        "is more accurate, significantly; int8-filter still keeps 75 % of fp32's accuracy and is the fastest that does."
    )
    assert any(said in reason for reason in loose.reasons)


def test_fp16_where_it_is_the_faster_one() -> None:
    """On hardware that runs it so, nothing speaks for int8."""
    speeds: dict[str, int | None] = {"fp16": 800, "int8-filter": 1000}
    (answer,) = recommend(sweep_evidence({"fp16": 0, "int8-filter": 0}, cycles=speeds))
    assert answer.choice is not None
    assert answer.choice["group"] == "fp16"
    assert not any("int8" in reason and "costs too much" in reason for reason in answer.reasons)


def test_int8_where_the_times_are_alike() -> None:
    """Half a percent is less than an estimate knows."""
    speeds: dict[str, int | None] = {"fp16": 1000, "int8-filter": 1005}
    (answer,) = recommend(sweep_evidence({"fp16": 0, "int8-filter": 0}, cycles=speeds))
    assert answer.choice is not None
    assert answer.choice["group"] == "int8-filter"
    assert "as fast to 1 %: fp16." in answer.times[0]


def test_no_variant_that_keeps_the_accuracy() -> None:
    """It is said, and the most accurate is named: 40 lost are significantly more than 20."""
    lost = {"int8-filter": 20, "int8-kernel": 60}
    speeds: dict[str, int | None] = {"int8-filter": 1000, "int8-kernel": 500}
    (answer,) = recommend(sweep_evidence(lost, cycles=speeds))
    assert answer.headline.startswith(
        "No variant keeps 99 % of fp32's accuracy; of the most accurate, use int8 per-filter"
    )
    assert "int8-kernel takes 0.50 times as long, but it does not keep the accuracy" in answer.times[0]


def test_too_few_images_to_say() -> None:
    """2 of 200 lost: the interval has 99 % in it."""
    (answer,) = recommend(sweep_evidence({"int8-filter": 2}, cycles={"int8-filter": 1000}))
    assert answer.headline.endswith("the fastest that may keep 99 % of fp32's accuracy.")
    assert "Too few images to say whether it keeps 99 %" in answer.reasons[0]


def test_speed_does_not_make_up_for_what_nobody_verified() -> None:
    lost, speeds = dict.fromkeys(SPEEDS, 0), SPEEDS
    (answer,) = recommend(sweep_evidence(lost, unverified=("int8-filter",), cycles=speeds))
    assert answer.choice is not None
    assert answer.choice["group"] == "int8-kernel"
    assert "int8-filter takes 0.67 times as long, but it is not verified" in answer.times[0]


def test_times_of_each_target_stand_in_one_answer() -> None:
    """The same choice for the same reasons; the glance has a line for each time, and the fastest of all."""
    evidence = sweep_evidence({"int8-filter": 0}, ("nv_large", "nv_small"), cycles={"int8-filter": 1000})
    slow = evidence.groups["ms"].mask(evidence.groups["target"] == "nv_small", 8.0)
    (answer,) = answers = recommend(replace(evidence, groups=evidence.groups.assign(ms=slow)))
    assert answer.targets == ("nv_large", "nv_small")
    assert [said.split(" ms")[0] for said in answer.times] == ["nv_large: 1", "nv_small: 8"]
    shown = glance(answers)
    assert [line[1:3] + line[-2:] for line in lines_of(shown)] == [
        ("nv_large", "int8-filter", "1", "MACs"),
        ("nv_small", "int8-filter", "8", "MACs"),
    ]
    assert shown.notes[0] == "lenet on mnist, the fastest of all targets: int8-filter on nv_large, 1 ms."


def test_extrapolated_times_are_marked() -> None:
    (answer,) = recommend(sweep_evidence({"fp16": 0}, cycles={"fp16": 2000}))
    assert answer.times[0].startswith("nv_full: 2* ms an image")
    shown = glance([answer])
    assert lines_of(shown)[0][-2] == "2*"
    assert "* extrapolated: no measurement stands behind" in shown.notes[-1]


def test_the_end_of_a_run_says_how_long_it_takes() -> None:
    said = closing(sweep_evidence({"int8-filter": 0}, cycles={"int8-filter": 1000}))
    assert said.endswith("the fastest that keeps 99 % of fp32's accuracy. Estimated: nv_full 1 ms.\n")


def test_what_methods_gain() -> None:
    """Of 200 images per-filter loses 30; with one method 10 (20 won, p = 2**-19) and with another 29."""
    lost = {"int8-filter": 30, "int8-filter-bias": 29, "int8-filter-bias-adaround": 10}
    (answer,) = recommend(sweep_evidence(lost))
    said = [reason for reason in answer.reasons if "beside none" in reason]
    assert said == [
        "bias-adaround beside none: +10.00 points in the mean of 1 pairs; significantly better in 1, worse in 0.",
        "bias beside none: +0.50 points in the mean of 1 pairs; significantly better in 0, worse in 0.",
    ]
    assert not any("beside none" in reason for reason in recommend(sweep_evidence())[0].reasons)
