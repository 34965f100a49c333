import pytest

from tests.labels.builders import real_bars


@pytest.fixture(scope="session")
def cn_bars(real_data):
    return real_bars(real_data, "cn_a_share")


@pytest.fixture(scope="session")
def us_bars(real_data):
    return real_bars(real_data, "us_market")
