"""Any number of runs and sweeps, compared: one HTML page, or a W&B Report."""

from rayprune.tracking.report.data import report_data
from rayprune.tracking.report.page import write_report

__all__ = ["report_data", "write_report"]
