"""Draw the curve of a learning rate range test: one SVG file that any browser shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import numpy as np

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 420, 70, 20, 50, 60


def rate_curve(
    title: str, rates: Sequence[float], losses: Sequence[float], smooth: Sequence[float],
    marks: Sequence[tuple[float, str, str]],
) -> str:  # fmt: skip
    """Return the picture: losses as dots and their running mean as a line, over the logarithm of the rate.

    Parameters
    ----------
    rates, losses, smooth : sequence of float
        One entry a step; rates are positive and rise.
    marks : sequence of (rate, colour, text)
        Vertical lines.
    """
    x_of = _scale(np.log10(rates[0]), np.log10(rates[-1]), _LEFT, _WIDTH - _RIGHT)
    low, high = min(smooth), max(smooth[len(smooth) // 20 :])
    edge = 0.1 * (high - low) or 0.1
    y_of = _scale(low - edge, high + edge, _HEIGHT - _BOTTOM, _TOP)
    bottom, places = _HEIGHT - _BOTTOM, [x_of(float(np.log10(rate))) for rate in rates]
    dots = [
        f'<circle cx="{x:.1f}" cy="{y_of(loss):.1f}" r="1.6" fill="#9aa4b2"/>'
        for x, loss in zip(places, losses, strict=True)
        if low - edge <= loss <= high + edge
    ]
    line = " ".join(f"{x:.1f},{y_of(value):.1f}" for x, value in zip(places, smooth, strict=True))
    decades = range(int(np.ceil(np.log10(rates[0]) - 1e-9)), int(np.floor(np.log10(rates[-1]) + 1e-9)) + 1)
    ticks = [_text(x_of(power), bottom + 18, f"1e{power}", "middle") for power in decades]
    levels = np.linspace(low, high, 5)
    ticks += [_text(_LEFT - 8, y_of(level) + 4, f"{level:.4g}", "end") for level in levels]
    lines = []
    for place, (rate, colour, text) in enumerate(marks):
        x = x_of(float(np.log10(rate)))
        lines.append(f'<path d="M{x:.1f},{_TOP}V{bottom}" stroke="{colour}" stroke-dasharray="4 3"/>')
        lines.append(_text(_LEFT + 8, _TOP + 16 * (place + 1), text, "start", colour))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
            _text(_LEFT, 24, title, "start"),
            f'<path d="M{_LEFT},{_TOP}V{bottom}H{_WIDTH - _RIGHT}" fill="none" stroke="#444"/>',
            *ticks,
            *dots,
            f'<polyline points="{line}" fill="none" stroke="#1f6feb" stroke-width="2"/>',
            *lines,
            _text(_WIDTH / 2, _HEIGHT - 16, "learning rate", "middle"),
            _text(_LEFT, _TOP - 8, "loss of a batch", "middle"),
            "</svg>",
            "",
        ]
    )


def _scale(low: float, high: float, first: float, last: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: first + (value - low) / span * (last - first)


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
