"""Reports: records -> DataFrame -> layouts -> terminal, Markdown, LaTeX, CSV, JSON. Needs neither torch nor ray."""

from augbench.report.frame import expected_frame, load_expected, load_records
from augbench.report.store_report import print_reports, report
from augbench.report.tables import Table, build_tables

__all__ = ["Table", "build_tables", "expected_frame", "load_expected", "load_records", "print_reports", "report"]
