"""Durations as people type them, and minutes as verbs take them."""

import numpy as np
import pytest

from barcast.core.durations import minutes_of, parse_duration
from barcast.core.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30m", 1800),
        ("1h30m", 5400),
        ("90s", 90),
        ("1.5h", 5400),
        ("500ms", 0.5),
        ("1m30s", 90),
        (" 2H ", 7200),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text, "--budget") == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "0s", "-5m", "30m1h", "1.2.3s", "5 m", "5d", "nans"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(UsageError, match=r"--budget .* is no duration"):
        parse_duration(text, "--budget")


@pytest.mark.parametrize(
    ("given", "minutes"), [(None, None), (30, 30.0), (0.5, 0.5), (np.float32(2), 2.0), ("30m", 30.0), ("1h30m", 90.0)]
)  # fmt: skip
def test_minutes_are_numbers_or_durations_with_a_unit(given, minutes):
    assert minutes_of(given, "time_budget") == minutes
    assert minutes is None or type(minutes_of(given, "time_budget")) is float, "one spelling, one digest"


@pytest.mark.parametrize("given", ["30", "soon", "", 0, -1, float("nan"), True, [30]])
def test_what_is_no_minutes_is_refused_with_what_is(given):
    with pytest.raises(UsageError, match="time_budget") as refused:
        minutes_of(given, "time_budget")
    assert '"30m"' in refused.value.todo
