"""Reports: one HTML file of tables and figures, of a run or of anything else."""

from .document import Facts, Figure, Listing, Picture, Section, Table, Text
from .page import render_report, write_report
from .plots import Line, line_plot, stacked_bars
from .run import write_run_report

__all__ = [
    "Facts",
    "Figure",
    "Line",
    "Listing",
    "Picture",
    "Section",
    "Table",
    "Text",
    "line_plot",
    "render_report",
    "stacked_bars",
    "write_report",
    "write_run_report",
]
