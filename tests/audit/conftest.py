"""One world a market, made once."""

import pytest

from tests.audit.builders import make_world


@pytest.fixture(scope="session")
def world():
    """Thirty-six symbols of a US-like market: raw prices, splits, dividends, holes, ends, late listings."""
    return make_world()


@pytest.fixture(scope="session")
def cn_world():
    """The same with daily price limits."""
    return make_world(market="cn", seed=3)


@pytest.fixture(scope="session")
def small_world():
    """Eight symbols: the small-universe rules apply."""
    return make_world(8, seed=5)
