"""barcast: train, compare and serve price-forecasting models for a whole market on one machine.

The verbs of the command line, typed::

    import barcast

    barcast.import_data("bars/", workspace="ws", market="us", basis="raw", volume_unit="share")
    result = barcast.train("lstm", workspace="ws", horizons=(5,), final=True)
    forecasts = barcast.predict(workspace="ws")
    forecasts.table  # polars frame, best score first

Heavy libraries are imported by the verb that needs them, so importing barcast is instant.
"""

from barcast.api import (
    add_status,
    check_data,
    check_features,
    compact,
    compare,
    conflicts,
    doctor,
    export_data,
    failures,
    feature_sets,
    import_data,
    info,
    predict,
    quickstart,
    report,
    run_audit,
    run_status,
    runs,
    status,
    train,
    update_data,
)
from barcast.core.errors import BarcastError
from barcast.core.workspace import Workspace

__all__ = [
    "BarcastError",
    "Workspace",
    "add_status",
    "check_data",
    "check_features",
    "compact",
    "compare",
    "conflicts",
    "doctor",
    "export_data",
    "failures",
    "feature_sets",
    "import_data",
    "info",
    "predict",
    "quickstart",
    "report",
    "run_audit",
    "run_status",
    "runs",
    "status",
    "train",
    "update_data",
]
