"""Policies: defaults, what may be masked, refusals with rows, and the record of a run."""

import polars as pl
import pytest

from barcast.core.config import from_plain, to_plain
from barcast.core.errors import QualityError, UsageError
from barcast.quality import KINDS, QualityPolicy, apply_policy, check_bars

from .frames import calendar_of, clean_frame, edit, scale


@pytest.fixture(scope="module")
def report():
    frame = edit(clean_frame(), 10, close=-1.0)
    frame = edit(frame, 10, volume=0.0)
    frame = edit(frame, [20, 21, 22, 23, 24, 25, 26], volume=0.0)
    frame = scale(frame, slice(150, 152), 0.1)
    return check_bars(frame, calendar_of(clean_frame()), "us")


def test_a_policy_names_every_kind_and_survives_being_saved():
    policy = QualityPolicy({"zero_volume": "mask"})
    assert list(policy.choices) == list(KINDS)
    assert policy.choice("zero_volume") == "mask"
    assert policy.choice("future_date") == "refuse"
    assert from_plain(QualityPolicy, to_plain(policy)) == policy


def test_defaults_are_allowed_and_mask_only_what_is_known_at_the_row():
    for kind in KINDS.values():
        assert kind.default in kind.allowed
        assert ("mask" in kind.allowed) == (kind.causal and kind.in_row)
    masked = {name for name, choice in QualityPolicy().choices.items() if choice == "mask"}
    assert masked == {
        "duplicate_conflict", "non_finite", "non_positive_price", "impossible_bar", "close_outside_bar",
        "negative_volume", "off_calendar",
    }  # fmt: skip


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if not kind.causal])
def test_masking_with_hindsight_is_refused(kind):
    with pytest.raises(UsageError, match="universe from the future") as error:
        QualityPolicy({kind: "mask"})
    assert "refuse or accept" in error.value.todo


def test_masking_a_step_is_refused_because_it_would_not_help():
    with pytest.raises(UsageError, match="still there"):
        QualityPolicy({"stitched_anchor": "mask"})


def test_typing_errors_get_the_nearest_name():
    with pytest.raises(UsageError, match="zero_volum`") as error:
        QualityPolicy({"zero_volum": "mask"})
    assert "zero_volume" in error.value.todo
    with pytest.raises(UsageError, match="`ignore` is not one of"):
        QualityPolicy({"zero_volume": "ignore"})


def test_masked_rows_are_listed_once(report):
    day = report.of("non_positive_price")["time"][0]
    rows = apply_policy(report, QualityPolicy())
    assert rows.rows() == [("S000", day)]
    assert rows.schema["time"] == pl.Date
    more = apply_policy(report, QualityPolicy({"zero_volume": "mask"}))
    assert len(more) == 8
    assert more.is_sorted("symbol")


def test_refusal_names_rows_and_the_next_step(report):
    with pytest.raises(QualityError) as error:
        apply_policy(report, QualityPolicy({"zero_volume": "refuse", "spike": "refuse"}))
    assert "zero_volume: 8 found" in error.value.found
    assert f"S000 {report.of('zero_volume')['time'][0]}" in error.value.found
    assert "... and 3 more" in error.value.found
    assert "spike: 1 found" in error.value.found
    assert '`zero_volume = "mask"` under [quality]' in error.value.todo
    with pytest.raises(QualityError) as error:
        apply_policy(report, QualityPolicy({"spike": "refuse"}))
    assert '`spike = "accept"`' in error.value.todo


def test_nothing_to_leave_out_keeps_the_columns():
    clean = check_bars(clean_frame(), calendar_of(clean_frame()), "us")
    rows = apply_policy(clean, QualityPolicy())
    assert rows.is_empty()
    assert rows.columns == ["symbol", "time"]
    assert rows.schema["time"] == pl.Date
