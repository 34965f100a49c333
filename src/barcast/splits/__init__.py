"""Which sessions may teach and which may judge: purge, embargo, walk-forward, cross-validation."""

from barcast.splits.cross_validation import Fold, fold_segments, purged_folds
from barcast.splits.segments import DEFAULT_SHARES, SegmentPlan, begins_after, check_disjoint
from barcast.splits.walk import PurgedBlocks, walk_forward

__all__ = [
    "DEFAULT_SHARES", "Fold", "PurgedBlocks", "SegmentPlan", "begins_after", "check_disjoint",
    "fold_segments", "purged_folds", "walk_forward",
]  # fmt: skip
