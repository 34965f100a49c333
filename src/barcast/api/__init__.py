"""The verbs in Python: thin over the same functions as the commands, with the same names and defaults.

Every verb takes ``workspace``: a folder, a :class:`Workspace`, or None for ``BARCAST_WORKSPACE`` or the
current folder. Nothing heavy is imported until a verb is called.
"""

from barcast.api.data import (
    add_status,
    check_data,
    check_features,
    compact,
    conflicts,
    export_data,
    facts,
    failures,
    feature_sets,
    import_data,
    info,
    status,
    update_data,
)
from barcast.api.fleet import fleet_status, fleet_symbol, plan_fleet, retry_failed, route, train_fleet
from barcast.api.fleet_cv import fleet_cross_validation
from barcast.api.fleet_stored import fleet_decay, fleet_export, fleet_refresh
from barcast.api.runs import (
    compare,
    doctor,
    embeddings,
    load,
    predict,
    promote,
    report,
    rollback,
    run_audit,
    run_status,
    runs,
)
from barcast.api.training import (
    adapt,
    plan_train,
    quickstart,
    range_test,
    retrain,
    train,
    tune,
    tune_symbol,
)

__all__ = [
    "adapt",
    "add_status",
    "check_data",
    "check_features",
    "compact",
    "compare",
    "conflicts",
    "doctor",
    "embeddings",
    "export_data",
    "facts",
    "failures",
    "feature_sets",
    "fleet_cross_validation",
    "fleet_decay",
    "fleet_export",
    "fleet_refresh",
    "fleet_status",
    "fleet_symbol",
    "import_data",
    "info",
    "load",
    "plan_fleet",
    "plan_train",
    "predict",
    "promote",
    "quickstart",
    "range_test",
    "report",
    "retrain",
    "retry_failed",
    "rollback",
    "route",
    "run_audit",
    "run_status",
    "runs",
    "status",
    "train",
    "train_fleet",
    "tune",
    "tune_symbol",
    "update_data",
]
