"""`check_bars`: every detector over the stored rows, in one pass of a few seconds."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from barcast.core.calendar import Calendar
from barcast.quality.anchors import anchor_findings
from barcast.quality.copies import copy_findings
from barcast.quality.levels import level_findings
from barcast.quality.panel import panel_findings
from barcast.quality.report import QualityReport
from barcast.quality.rows import conflict_findings, row_findings, time_findings
from barcast.quality.steps import step_findings
from barcast.quality.table import Table

_DETECTORS = (row_findings, step_findings, level_findings, copy_findings, anchor_findings, panel_findings)


def check_bars(
    frame: pl.DataFrame,
    calendar: Calendar,
    market: str,
    conflicts: pl.DataFrame | None = None,
    now: datetime | None = None,
) -> QualityReport:
    """Look for every known kind of defect.

    Parameters
    ----------
    frame : pl.DataFrame
        The store's rows (``STORE_COLUMNS``), sorted by symbol and time, prices as the source gave them.
    calendar : Calendar
        The sessions that holes are counted on.
    market : str
        ``cn``, ``us``, ``crypto`` or ``other``; price limits are those of ``cn``.
    conflicts : pl.DataFrame, optional
        All versions of rows that came more than once with different values: the store's columns and ``file``.
    now : datetime, optional
        The present in UTC; rows dated more than 26 hours later are from the future. Default: the clock.

    Returns
    -------
    QualityReport
        What was found, by kind, symbol and time. Nothing is changed or left out.

    Notes
    -----
    Findings of a causal kind up to a session are the same when the history ends there. NaN and null are
    defects of their own kind and start or end no return.
    """
    found = conflict_findings(frame, conflicts)
    if len(frame):
        table = Table.build(frame, calendar, market)
        for detect in _DETECTORS:
            found += detect(table)
        found += time_findings(table, now)
    return QualityReport.build(frame, calendar, market, found)
