"""A driver in small, to be killed: two units under way at a time, each kept when its result is there."""

import hashlib
import random
import sys
from pathlib import Path

from barcast.fleet.ledger import Ledger
from barcast.fleet.ledger_rows import Wanted
from barcast.fleet.work import SymbolResult, Unit


def wanted(count):
    return [Wanted(f"S{i:04d}", i, "settings", "data") for i in range(count)]


def result_of(symbol):
    """What a fit of this symbol gives, always the same bytes; some span many pages."""
    seed = hashlib.sha256(symbol.encode()).digest()
    model = seed * (1 + 40 * (seed[0] % 50))
    return SymbolResult(
        symbol,
        "fast",
        "done",
        num_rows=seed[1],
        metrics={"weight": seed[2] / 255},
        model=model,
        native=model[::-1],
    )


def write(path, count, seed):
    order = random.Random(seed)
    with Ledger.create(path) as ledger:
        todo = list(ledger.plan(wanted(count)).todo)
        order.shuffle(todo)
        under_way = []
        sys.stdout.write("begun\n")
        sys.stdout.flush()
        while todo or under_way:
            while todo and len(under_way) < 2:
                planned = todo.pop()
                ledger.start([Unit((planned.symbol,), (planned.position,), "fast", planned.attempts + 1)])
                under_way.append(planned.symbol)
            ledger.finish([result_of(under_way.pop(order.randrange(len(under_way))))])
        sys.stdout.write("ended\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
