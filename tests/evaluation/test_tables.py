"""Result tables, cell by cell."""

from __future__ import annotations

import numpy as np
import pytest

from ion_d2.evaluation.tables import class_table, format_percent, metrics_table, voc_table
from ion_d2.evaluation.voc_ap import VOCResult


def cells(table):
    lines = [line.strip("|").split("|") for line in table.splitlines()]
    assert set("".join(lines[1])) <= set("-:")
    return [[cell.strip() for cell in line] for line in lines[:1] + lines[2:]]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.0"), (100, "100.0"), (66.66, "66.7"), (float("nan"), "-"), (np.float64("nan"), "-")],
)
def test_format_percent(value, text):
    assert format_percent(value) == text


def test_voc_table():
    nan = np.nan
    result = VOCResult(
        class_names=("cat", "1e3", "absent"),
        iou_thresholds=(0.5, 0.75),
        ap={
            "11point": np.array([[0.9, 0.5], [0.7, 0.1], [nan, nan]]),
            "area": np.array([[0.95, 0.55], [0.75, 0.15], [nan, nan]]),
        },
        num_positives=np.array([12, 1, 0]),
        num_difficult=np.array([0, 3, 2]),
        num_images=np.array([7, 1, 0]),
    )
    table = cells(voc_table(result, "area"))
    assert table == [
        ["class", "images", "boxes", "AP50 11-point", "AP50 area", "AP75 area", "AP area"],
        ["cat", "7", "12", "90.0", "95.0", "55.0", "75.0"],
        ["1e3", "1", "1", "70.0", "75.0", "15.0", "45.0"],
        ["absent", "0", "0", "-", "-", "-", "-"],
        ["mean", "", "13", "80.0", "85.0", "35.0", "60.0"],
    ]
    assert cells(voc_table(result, "11point"))[-1][-2:] == ["30.0", "55.0"]
    assert cells(voc_table(result, "11point"))[0][-2:] == ["AP75 11-point", "AP 11-point"]


def test_metrics_table():
    figures = {"AP": 12.34, "APs": float("nan"), "APl": 100.0}
    assert cells(metrics_table(figures)) == [["AP", "APs", "APl"], ["12.3", "-", "100.0"]]


def test_class_table():
    table = cells(class_table({"background": 90.04, "cat": float("nan")}, "IoU", 90.04))
    assert table == [["class", "IoU"], ["background", "90.0"], ["cat", "-"], ["mean", "90.0"]]
