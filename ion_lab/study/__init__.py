"""Controlled studies: tables of trainings that differ in a few config keys, run and told together.

A table is data (``configs/study/*.yaml``, see :mod:`ion_lab.study.table_file`). Its runs are
trainings by ``train_net.py`` in processes of their own; what they measured becomes
``results.json``, Markdown and a plot.
"""

from ion_lab.study.runner import Interrupted
from ion_lab.study.statistics import spread_of
from ion_lab.study.study_of_table import Study, run_study
from ion_lab.study.table import Table
from ion_lab.study.table_file import read_table

__all__ = [
    "Interrupted",
    "Study",
    "Table",
    "read_table",
    "run_study",
    "spread_of",
]
