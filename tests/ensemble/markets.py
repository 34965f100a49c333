"""Synthetic markets whose truth is known, and slow references."""

from dataclasses import dataclass

import numpy as np


def autoregressive(rng, shape, coefficient=0.9):
    """Standard series along the first axis."""
    shocks = rng.normal(size=shape)
    series = np.empty(shape)
    series[0] = shocks[0]
    for t in range(1, len(series)):
        series[t] = coefficient * series[t - 1] + np.sqrt(1 - coefficient**2) * shocks[t]
    return series


def outcomes(rng, num_sessions, num_symbols, horizon, freedom, market_share=0.3):
    """Standardised returns over ``horizon`` sessions that move together, shape (T, S)."""
    days = num_sessions + horizon - 1
    shared, own = (rng.standard_t(freedom, (days, n)) for n in (1, num_symbols))
    shocks = np.sqrt(market_share) * shared + np.sqrt(1 - market_share) * own
    shocks /= np.sqrt(freedom / (freedom - 2))
    return sum(shocks[i : i + num_sessions] for i in range(horizon)) / np.sqrt(horizon)


def without_signal(
    seed, *, symbols=120, sessions=80, horizon=5, freedom=4, shared=0.07, own=0.07, lean=0.0, missing=0.1
):
    """Gains (T, S) of dedicated forecasts that are exactly as bad as the universal ones."""
    rng = np.random.default_rng(seed)
    y = outcomes(rng, sessions, symbols, horizon, freedom)
    universal, dedicated = (
        own * autoregressive(rng, (sessions, symbols))
        + shared * autoregressive(rng, (sessions, 1))
        + lean * rng.normal(size=symbols)
        for _ in range(2)
    )
    gain = (y - universal) ** 2 - (y - dedicated) ** 2
    return np.where(rng.random(gain.shape) < missing, np.nan, gain)


@dataclass(frozen=True)
class Dialled:
    """A market in which each symbol has a slope of its own, and how far they lie apart is a dial.

    Losses (T, S) of both models on route and test rows. The dedicated model knows its symbol's slope up to an
    error, the universal one only what symbols have in common; the least loss possible is the noise's.
    """

    route_universal: np.ndarray
    route_dedicated: np.ndarray
    test_universal: np.ndarray
    test_dedicated: np.ndarray


def dialled(seed, dial, *, symbols=150, sessions=120, test=120, horizon=5, error=0.12, shared=0.3):
    rng = np.random.default_rng(seed)
    total = sessions + horizon + test  # a purge between them
    x = np.sqrt(1 - shared**2) * autoregressive(rng, (total, symbols)) + shared * autoregressive(
        rng, (total, 1)
    )
    noise = outcomes(rng, total, symbols, horizon, 4)
    slope = 0.2 + dial * rng.normal(size=symbols)
    dedicated = slope + error * rng.normal(size=symbols)
    y = slope * x + noise
    losses = (y - 0.2 * x) ** 2, (y - dedicated * x) ** 2
    return Dialled(*(loss[:sessions] for loss in losses), *(loss[sessions + horizon :] for loss in losses))


def flat(values):
    """Turn (T, S) into flat rows sorted by symbol, with offsets and sessions."""
    sessions, symbols = values.shape
    return values.T.ravel(), np.arange(symbols + 1) * sessions, np.tile(np.arange(sessions), symbols)


def pseudo_bma(log_density, session, horizon, num_draws, seed):
    """One symbol's weights with equal priors, draw by draw: the slow reference."""
    num_rows, num_members = log_density.shape
    blocks = sorted({int(s) // horizon for s in session})
    alphas = {}
    for block in blocks:
        stream = np.random.Philox(key=seed, counter=[0, 0, 0, block])
        alphas[block] = np.random.Generator(stream).standard_exponential(num_draws)
    weights = np.zeros(num_members)
    for b in range(num_draws):
        weight_of_row = np.array([alphas[int(s) // horizon][b] for s in session])
        mean = (weight_of_row[:, None] * log_density).sum(axis=0) / weight_of_row.sum()
        z = num_rows / horizon * mean
        e = np.exp(z - z.max())
        weights += e / e.sum() / num_draws
    return weights
