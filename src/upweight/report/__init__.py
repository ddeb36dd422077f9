"""Reports: scores and examples as one self-contained HTML page."""

from upweight.report.page import write_report

__all__ = ["write_report"]
