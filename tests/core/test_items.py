import numpy as np
import pytest

from barcast.core.config import items, some_items
from barcast.core.errors import UsageError

EMPTY = [[], (), set(), np.array([], str), {}.keys()]


@pytest.mark.parametrize("empty", EMPTY)
def test_a_list_may_be_empty(empty):
    assert items(empty, "static") == () == items(None, "static")


@pytest.mark.parametrize("empty", EMPTY)
def test_a_choice_that_left_nothing_is_not_everything(empty):
    assert some_items(None, "symbols") == ()
    with pytest.raises(UsageError, match="symbols: a list with nothing in it"):
        some_items(empty, "symbols")


def test_one_alone_is_a_list_of_one_and_sets_are_in_order():
    assert items("AAPL", "symbols") == ("AAPL",) and items(5, "horizons") == (5,)
    assert items({"B", "A"}, "symbols") == items(["A", "B"], "symbols") == ("A", "B")
