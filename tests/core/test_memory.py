"""What the allocator keeps, in a process of its own: its settings are for good."""

import subprocess
import sys

import pytest

SCRIPT = """
import numpy as np
from barcast.core.memory import Fragments, keep_freed_memory, pss_bytes

keep_freed_memory()
fragments = Fragments(allowance=64 << 20)
blocks = [np.ones(1 << 17) for _ in range(300)]
pins = blocks[::2]  # what is freed lies between what is used
blocks.clear()
full = pss_bytes()
fragments.give_back()
print(full - pss_bytes())
again = [np.ones(1 << 17) for _ in range(30)]
again.clear()
before = pss_bytes()
fragments.give_back()  # no more is freed than was given back: nothing to do
print(before - pss_bytes())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the pool is that of glibc")
def test_freed_blocks_between_used_ones_are_given_back_once_they_are_many():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    given, more = map(int, done.stdout.split())
    assert given > 100 << 20
    assert more < 8 << 20
