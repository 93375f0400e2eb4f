"""tools/measure_padding.py: what padding changes, under each meta-architecture and backbone."""

import numpy as np
import pytest
from cli_helpers import load_tool
from model_helpers import SMALL
from PIL import Image


@pytest.fixture
def measured(tmp_path, capsys):
    """Config file and overrides -> name of a feature -> its two cells of the table, first line."""
    picture = tmp_path / "a.png"

    def measure(config, *opts, height=256):
        pixels = np.random.default_rng(0).integers(0, 256, (height, 288, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(picture)
        words = [str(picture), "--config-file", config, *SMALL, *opts]
        load_tool("measure_padding").main(words)
        first, *lines = capsys.readouterr().out.splitlines()
        return first, {line.split()[0]: line.split()[1:] for line in lines}

    return measure


def test_inner_cells_of_a_vgg_see_no_padding(measured):
    first, cells = measured("configs/ion_tiny.yaml", "MODEL.VGG.NORM", "")
    assert first == "Inner cells are those more than 98 pixels from the padded sides."
    assert set(cells) >= {"conv5", "context"}
    assert cells["conv5"][0] != "0.00%" and cells["conv5"][1] == "0.00%"


def test_pictures_of_one_channel(measured):
    gray = ("INPUT.FORMAT", "L", "MODEL.PIXEL_MEAN", "[100.0]", "MODEL.PIXEL_STD", "[50.0]")
    assert "conv5" in measured("configs/ion_tiny.yaml", *gray)[1]


def test_under_another_meta_architecture_padding_counts_as_image(measured):
    opts = ("MODEL.VGG.NORM", "")
    ion = measured("configs/ion_tiny.yaml", *opts)[1]
    plain = measured("configs/ion_tiny.yaml", *opts, "MODEL.META_ARCHITECTURE", "GeneralizedRCNN")
    assert plain[1]["conv5"] == ion["conv5"]
    assert float(plain[1]["context"][0][:-1]) > float(ion["context"][0][:-1])


def test_inner_cells_of_other_backbones_are_not_known(measured):
    pytest.importorskip("timm")
    opts = ("MODEL.TIMM.WEIGHTS", "", "MODEL.CONTEXT.HIDDEN_DIM", "0", "MODEL.CONTEXT.OUT_DIM", "0")
    first, cells = measured("configs/real/ion.yaml", *opts)
    assert first.split() == ["feature", "all", "cells", "inner", "cells"]
    assert {inner for _, inner in cells.values()} == {"-"} and "stage5" in cells


def test_where_no_cell_is_inner_there_is_no_figure(measured):
    """A receptive field wider than the picture; the label maps' classes go with the boxes'."""
    opts = ("MODEL.VGG.NORM", "", "MODEL.VGG.DEPTH", "19", "MODEL.SEG_REGULARIZER_ON", "True")
    cells = measured("configs/ion_tiny.yaml", *opts, height=100)[1]
    assert cells["conv5"][1] == "-"
