"""Reports: one HTML file of tables and figures, of a run or of anything else."""

from .charts import Bar, Line, bars_plot, lines_plot, stacked_plot
from .document import Facts, Figure, Listing, Picture, Section, Table, Text
from .page import render_report, write_report
from .run_report import write_run_report

__all__ = [
    "Bar",
    "Facts",
    "Figure",
    "Line",
    "Listing",
    "Picture",
    "Section",
    "Table",
    "Text",
    "bars_plot",
    "lines_plot",
    "render_report",
    "stacked_plot",
    "write_report",
    "write_run_report",
]
