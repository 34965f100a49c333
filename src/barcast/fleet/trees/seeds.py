"""Seeds that depend on what is trained, never on when: a resumed fleet draws the same numbers."""

from __future__ import annotations

import hashlib


def seed_of(seed: int, *names: str | int) -> int:
    """Hash a fleet's seed and the names of what is trained (symbol, horizon, member) into 63 bits."""
    text = "\0".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
