"""Predictions tables of a known kind."""

import numpy as np
import polars as pl

from barcast.core.predictions import conform
from barcast.evaluation.align import align
from barcast.evaluation.compare import compare_rows
from barcast.evaluation.settings import Settings


def compare(predictions, *, segment, horizon=None, delay=None, **settings):
    """Align and compare in one step."""
    rows = align(predictions, segment=segment, horizon=horizon, delay=delay)
    return compare_rows(rows, Settings(**settings))


def table(
    model,
    score,
    y,
    *,
    y_hat="score",
    seed=0,
    run="r",
    horizon=1,
    delay=1,
    segment="test",
    route="universal",
    tradable=None,
    p_up=None,
    quantiles=None,
    first="2024-01-01",
):
    """One model; ``score`` and ``y`` are [sessions, symbols], NaN where there is no row."""
    score, y = np.broadcast_arrays(np.asarray(score, float), np.asarray(y, float))
    num_sessions, num_symbols = y.shape
    times = np.repeat(np.datetime64(first) + np.arange(num_sessions), num_symbols).astype("datetime64[us]")
    frame = pl.DataFrame(
        {
            "run": run,
            "model": model,
            "seed": seed,
            "symbol": [f"S{n:03d}" for n in range(num_symbols)] * num_sessions,
            "time": times,
            "segment": segment,
            "fold": 0,
            "horizon": horizon,
            "delay": delay,
            "target": "return",
            "score": score.ravel(),
            "y_hat": score.ravel() if isinstance(y_hat, str) else np.broadcast_to(y_hat, y.shape).ravel(),
            "p_up": np.full(y.size, np.nan) if p_up is None else np.broadcast_to(p_up, y.shape).ravel(),
            "quantiles": None if quantiles is None else [list(quantiles)] * y.size,
            "y": y.ravel(),
            "tradable": True if tradable is None else np.asarray(tradable).ravel(),
            "route": route,
        },
        strict=False,
    )
    return conform(frame.with_columns(pl.col("y").fill_nan(None)))


def market(num_sessions=120, num_symbols=40, *, seed=0, common=0.5):
    """A hidden signal and returns that follow it a little, [sessions, symbols]; symbols move together."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(num_sessions, num_symbols))
    together = common * rng.normal(size=(num_sessions, 1))
    y = 0.02 * (0.15 * signal + together + rng.normal(size=signal.shape))
    return signal, y


def usual(num_sessions=120, num_symbols=40, *, seed=0, **options):
    """A table with naive rows, ridge and two models, one of them of two seeds."""
    signal, y = market(num_sessions, num_symbols, seed=seed)
    rng = np.random.default_rng(seed + 1)

    def noisy(noise):
        return 0.02 * 0.1 * (signal + noise * rng.normal(size=signal.shape))

    reversal = 0.001 * rng.normal(size=signal.shape)
    parts = [
        table("lstm", noisy(1.0), y, seed=1, **options),
        table("zero", 0 * y, y, route="naive", **options),
        table("ridge", noisy(2.0), y, **options),
        table("reversal", reversal, y, route="naive", **options),
        table("lightgbm", noisy(0.5), y, **options),
        table("lstm", noisy(1.0), y, seed=0, **options),
        table("always_up", 0 * y + 1, y, y_hat=0.001, route="naive", **options),
    ]
    return pl.concat(parts)
