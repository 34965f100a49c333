"""A driver in small."""

import time


def drive(executor, todo, *, seconds=60.0, on_finished=lambda each: None):
    """Keep an executor at its capacity until every unit is back; return them in the order of their end."""
    waiting, finished, under_way = list(reversed(todo)), [], 0
    end = time.monotonic() + seconds
    while waiting or under_way:
        while waiting and under_way < executor.capacity:
            executor.submit(waiting.pop())
            under_way += 1
        for each in executor.results(1.0):
            under_way -= 1
            finished.append(each)
            on_finished(each)
        assert time.monotonic() < end, f"{under_way} units never came back"
    return finished


def symbols_of(finished):
    return sorted(each.unit.symbols[0] for each in finished)
