"""Fixtures every room shares."""

import itertools
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

# Several test processes share few cores: threads that wait for each other would cost more than they give.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "2")

# A shell that starts tests in the background has them ignore Ctrl-C, which some of them are about.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
import pytest

from barcast.core.bars import Bars
from barcast.core.calendar import build_calendar, exchange_days


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real market data, or a skip that says how to have it."""
    folder = Path(os.environ.get("BARCAST_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "cn_a_share.parquet").is_file():
        pytest.skip(f"no real market data at {folder}: set BARCAST_TEST_DATA to a folder that has it")
    return folder


def make_bars(
    lengths=(300, 250, 120, 60, 30, 5), *, seed=0, holes=(), num_sessions=None, market="us", zero_volume=()
) -> Bars:
    """Random-walk bars: symbol s has the last lengths[s] sessions; holes are (symbol, first, last)."""
    rng = np.random.default_rng(seed)
    total = num_sessions or max(lengths)
    days = exchange_days("XNYS", np.datetime64("2015-01-02").item(), np.datetime64("2024-12-31").item())
    calendar = build_calendar("XNYS", "1d", days[:total])
    session, offsets = [], [0]
    for position, length in enumerate(lengths):
        own = np.arange(total - length, total)
        for symbol, first, last in holes:
            if symbol == position:
                own = own[(own < first) | (own > last)]
        session.append(own)
        offsets.append(offsets[-1] + len(own))
    rows = offsets[-1]
    close = np.empty(rows)
    for start, stop in itertools.pairwise(offsets):
        close[start:stop] = 20 * np.exp(np.cumsum(rng.normal(0, 0.02, stop - start)))
    open_ = close * np.exp(rng.normal(0, 0.008, rows))
    high = np.maximum(open_, close) * np.exp(np.abs(rng.normal(0, 0.006, rows)))
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0, 0.006, rows)))
    volume = np.exp(rng.normal(13, 0.7, rows)).round()
    volume[list(zero_volume)] = 0
    return Bars(
        symbols=tuple(f"S{i:03d}" for i in range(len(lengths))),
        offsets=np.array(offsets, np.int64),
        session=np.concatenate(session).astype(np.int32),
        open=open_, high=high, low=low, close=close, volume=volume,
        amount=np.full(rows, np.nan), close_traded=close.copy(),
        calendar=calendar, market=market, delisted=np.full(len(lengths), -1, np.int32),
    )  # fmt: skip


@pytest.fixture
def bars() -> Bars:
    """Six symbols of unequal length on 300 sessions."""
    return make_bars()


class SoakTable:
    """Results of the long sweeps, written as one committed Markdown table."""

    path = Path(__file__).parents[1] / "benchmarks" / "results" / "soak.md"

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, bool, str]] = []

    def add(self, room: str, what: str, passed: bool, found: str = "") -> None:
        """Note one result, before it is asserted; ``found`` is what was measured, where that may change."""
        self.rows.append((room, what, passed, found))

    @contextmanager
    def judging(self, room: str, what: str) -> Iterator[list[str]]:
        """Note whether a block with assertions came to its end, and what it put into the list it is given."""
        passed, found = False, []
        try:
            yield found
            passed = True
        finally:
            self.add(room, what, passed, ", ".join(found))

    def write(self) -> None:
        """Write the table, sorted by room, with the day of each; rows of what did not run are kept."""
        results = {
            (room, what): ("passed" if passed else "FAILED") + (f": {found}" if found else "")
            for room, what, passed, found in self.rows
        }
        head = ["| room | what | result | on |", "| --- | --- | --- | --- |"]
        today = datetime.now(UTC).date()
        kept = []
        if self.path.is_file():
            lines = self.path.read_text(encoding="utf-8").splitlines()[2:]
            kept = [line for line in lines if tuple(map(str.strip, line.split("|")[1:3])) not in results]
        new = [f"| {room} | {what} | {result} | {today} |" for (room, what), result in results.items()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("\n".join([*head, *sorted(kept + new)]) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def soak_table():
    """The table that `make soak` leaves behind."""
    table = SoakTable()
    yield table
    if table.rows:
        table.write()


@pytest.fixture(scope="session")
def stored_market(tmp_path_factory):
    """A folder with a store of 36 symbols: copy its ``market``, never write into it."""
    import barcast
    from tests.journey.test_journey import write_market

    root = tmp_path_factory.mktemp("stored")
    write_market(root / "bars", symbols=36, sessions=260)
    barcast.import_data(root / "bars", workspace=root, market="us", basis="raw", volume_unit="share")
    return root
