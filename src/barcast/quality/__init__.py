"""What is wrong with the bars, row by row, and what to do about each kind."""

from barcast.quality.check import check_bars
from barcast.quality.kinds import KINDS, Kind
from barcast.quality.policy import QualityPolicy, apply_policy
from barcast.quality.render import finding_lines, report_lines, table_rows
from barcast.quality.report import QualityReport, SummaryRow

__all__ = [
    "KINDS",
    "Kind",
    "QualityPolicy",
    "QualityReport",
    "SummaryRow",
    "apply_policy",
    "check_bars",
    "finding_lines",
    "report_lines",
    "table_rows",
]
