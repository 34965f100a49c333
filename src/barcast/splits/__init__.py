"""Which sessions may teach and which may judge: purge, embargo, walk-forward, cross-validation."""

from barcast.splits.cross_validation import Fold, SymbolFold, purged_folds, split_symbol
from barcast.splits.segments import DEFAULT_SHARES, SegmentPlan, begins_after, check_disjoint
from barcast.splits.walk import PurgedBlocks, walk_forward

__all__ = [
    "DEFAULT_SHARES", "Fold", "PurgedBlocks", "SegmentPlan", "SymbolFold", "begins_after", "check_disjoint",
    "purged_folds", "split_symbol", "walk_forward",
]  # fmt: skip
