"""barcast: train, compare and serve price-forecasting models for a whole market on one machine.

The verbs of the command line, typed::

    import barcast

    barcast.import_data("bars/", workspace="ws", market="us", basis="raw", volume_unit="share")
    result = barcast.train("lstm", workspace="ws", horizons=(5,), final=True)
    forecasts = barcast.predict(workspace="ws")
    forecasts.table  # polars frame, best score first

Heavy libraries are imported by the verb that needs them, and the verbs with the first that is asked for, so
importing barcast is instant.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from barcast.api import (
        adapt,
        add_status,
        check_data,
        check_features,
        compact,
        compare,
        conflicts,
        doctor,
        embeddings,
        export_data,
        facts,
        failures,
        feature_sets,
        fleet_cross_validation,
        fleet_decay,
        fleet_export,
        fleet_refresh,
        fleet_status,
        fleet_symbol,
        import_data,
        info,
        load,
        plan_fleet,
        plan_train,
        predict,
        promote,
        quickstart,
        range_test,
        report,
        retrain,
        retry_failed,
        rollback,
        route,
        run_audit,
        run_status,
        runs,
        status,
        train,
        train_fleet,
        tune,
        tune_symbol,
        update_data,
    )
    from barcast.api.fleet_trainer import FleetTrainer
    from barcast.core.errors import BarcastError
    from barcast.core.workspace import Workspace

__all__ = [
    "BarcastError",
    "FleetTrainer",
    "Workspace",
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


def __getattr__(name: str) -> object:
    """Bring in the verbs when the first is asked for: whoever serves by one room pays for that alone."""
    if name not in __all__:
        raise AttributeError(f"module 'barcast' has no attribute '{name}'")
    from barcast import api
    from barcast.api.fleet_trainer import FleetTrainer
    from barcast.core.errors import BarcastError
    from barcast.core.workspace import Workspace

    found = {"BarcastError": BarcastError, "FleetTrainer": FleetTrainer, "Workspace": Workspace}
    globals().update({each: found.get(each) or getattr(api, each) for each in __all__})
    return globals()[name]
