"""Controlled studies: tables of trainings that differ in a few config keys, run and told together.

A table is data (``configs/study/*.yaml``, see :mod:`ion_d2.study.table_file`). Its runs are
trainings by ``train_net.py`` in processes of their own; what they measured becomes
``results.json``, Markdown and a plot.
"""

from ion_d2.study.results import collect_results
from ion_d2.study.runner import Interrupted
from ion_d2.study.statistics import Spread, pooled_spread, spread_of
from ion_d2.study.study import Study, run_study
from ion_d2.study.table import Table
from ion_d2.study.table_file import read_table

__all__ = [
    "Interrupted",
    "Spread",
    "Study",
    "Table",
    "collect_results",
    "pooled_spread",
    "read_table",
    "run_study",
    "spread_of",
]
