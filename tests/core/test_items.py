import numpy as np
import pytest

from barcast.core.config import items
from barcast.core.errors import UsageError


@pytest.mark.parametrize("left_out", [None, ()])
def test_what_is_left_out_is_no_list(left_out):
    assert items(left_out, "symbols") == ()


@pytest.mark.parametrize("empty", [[], set(), np.array([], str), {}.keys()])
def test_a_filter_that_left_nothing_is_not_everything(empty):
    with pytest.raises(UsageError, match="symbols: a list with nothing in it"):
        items(empty, "symbols")


def test_one_alone_is_a_list_of_one_and_sets_are_in_order():
    assert items("AAPL", "symbols") == ("AAPL",) and items(5, "horizons") == (5,)
    assert items({"B", "A"}, "symbols") == items(["A", "B"], "symbols") == ("A", "B")
