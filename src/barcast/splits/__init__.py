"""Which sessions may teach and which may judge: purge, embargo, walk-forward."""

from barcast.splits.segments import DEFAULT_SHARES, SegmentPlan, begins_after, check_disjoint
from barcast.splits.walk import PurgedBlocks, walk_forward

__all__ = [
    "DEFAULT_SHARES", "PurgedBlocks", "SegmentPlan", "begins_after", "check_disjoint", "walk_forward",
]  # fmt: skip
