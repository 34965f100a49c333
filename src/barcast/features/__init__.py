"""Numbers known at the close: one file per family, each declares its look-back."""

from barcast.features import adv11, core12, ohlcv5, tech48  # noqa: F401  (importing a family registers its sets)
from barcast.features.checks import check_causal
from barcast.features.engine import compute_features
from barcast.features.panel import Panel, build_panel
from barcast.features.registry import Feature, FeatureSet, SourceFile, feature_set, feature_sets
from barcast.features.user import feature, load_user_features, user_feature_sets

__all__ = [
    "Feature",
    "FeatureSet",
    "Panel",
    "SourceFile",
    "build_panel",
    "check_causal",
    "compute_features",
    "feature",
    "feature_set",
    "feature_sets",
    "load_user_features",
    "user_feature_sets",
]
