"""Synthetic markets whose signal can be switched off, and how often detectors speak on many of them."""

from dataclasses import dataclass

import numpy as np

from barcast.evaluation.skill import ForecastRows

HORIZON, DELAY = 5, 1
LABEL = HORIZON + DELAY


@dataclass(frozen=True)
class Market:
    """Forecasts before and after training, of S symbols in industries."""

    reference: ForecastRows
    since: ForecastRows
    industry: np.ndarray


def market(
    seed, *, num_symbols=40, num_reference=300, num_since=250, skill=0.15, off=(), off_after=0, regimes=0.0,
    num_industries=4,
):  # fmt: skip
    """Labels of 5 sessions that overlap, symbols that move together, heavy tails, storms.

    ``skill`` is the correlation of signal and next return; the symbols in ``off`` lose it ``off_after``
    sessions into the time since training. ``regimes`` lets skill itself come and go (it stays stationary).
    """
    rng = np.random.default_rng(seed)
    num_sessions = num_reference + num_since
    shape = (num_sessions + LABEL + 1, num_symbols)
    industry = np.arange(num_symbols) % num_industries
    signal = _autoregression(rng, shape, 0.8)
    storm = np.exp(0.4 * _autoregression(rng, (shape[0], 1), 0.97))
    noise = rng.standard_t(5, shape) / np.sqrt(5 / 3)
    noise += (
        0.6 * rng.normal(size=(shape[0], 1)) + 0.4 * rng.normal(size=(shape[0], num_industries))[:, industry]
    )
    strength = np.full(shape, skill) * (1 + regimes * _autoregression(rng, (shape[0], 1), 0.97))
    strength[num_reference + off_after :, list(off)] = 0.0
    returns = 0.02 * storm * noise
    returns[1:] += 0.02 * (storm * strength)[1:] * signal[:-1]
    total = np.cumsum(returns, axis=0)
    y = (total[LABEL:] - total[DELAY:-HORIZON])[:num_sessions]
    y_hat = 0.02 * skill * sum(0.8 ** (i + DELAY) for i in range(HORIZON)) * signal[:num_sessions]
    rows = _rows(y, y_hat)
    is_reference = rows.session < num_reference
    return Market(rows.take(is_reference), rows.take(~is_reference), industry)


def _autoregression(rng, shape, persistence):
    series = rng.normal(size=shape)
    for t in range(1, shape[0]):
        series[t] = persistence * series[t - 1] + np.sqrt(1 - persistence**2) * series[t]
    return series


def _rows(y, y_hat):
    session, symbol = (part.ravel().astype(np.int32) for part in np.indices(y.shape))
    return ForecastRows(symbol, session, y_hat.ravel(), y.ravel(), session + LABEL)
