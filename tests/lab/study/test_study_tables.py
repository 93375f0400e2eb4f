"""The shipped tables: they build, compare what they say, and hide their cues."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
from detectron2.modeling import build_model
from study_helpers import ROOT

from ion_d2.engine.setup import load_config
from ion_lab.scenes import SceneSettings
from ion_lab.scenes.geometry import Layer, receptive_field, safe_distance, vgg_conv5_layers
from ion_lab.study import read_table
from ion_lab.study.run_settings import as_overrides
from ion_lab.study.runs import plan_runs
from ion_lab.study.study_data import Pictures

pytestmark = pytest.mark.slow

TABLES = {path.stem: read_table(path) for path in sorted(ROOT.glob("configs/study/*.yaml"))}
ROWS = [(table, row) for table in TABLES.values() for row in table.rows]
CLASSES = {"MODEL.ROI_HEADS.NUM_CLASSES": 6, "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 7}


@functools.cache
def load(config, *overrides):
    return load_config(str(config), list(overrides))


def config_of(table, row, data=None):
    of_rows = {**table.trained(row).keys, **row.keys}
    keys = {**table.keys, **(data or table.data[0]).keys, **table.cuts["full"].keys, **of_rows}
    overrides = as_overrides({**keys, **CLASSES, "MODEL.DEVICE": "cpu", "MODEL.TIMM.WEIGHTS": ""})
    return load(table.config, *overrides)


def test_the_tables_of_the_study_are_there():
    names = "context far layers norm outside-inside photographs reach real real_segmentation start"
    assert list(TABLES) == names.split()
    for name, table in TABLES.items():
        assert table.title and table.question and len(table.cuts["full"].seeds) >= 3, name
        assert table.config.is_file() and ROOT / "configs" in table.config.parents
        assert len(table.cuts["quick"].seeds) < len(table.cuts["full"].seeds), name
        assert len({row.name for row in table.rows}) == len(table.rows)


@pytest.mark.parametrize(("table", "row"), ROWS, ids=lambda part: part.name)
def test_every_row_builds(table, row):
    if table.name.startswith("real"):
        pytest.importorskip("timm")
    cfg = config_of(table, row)
    model = build_model(cfg)
    names = dict(model.named_children())
    assert ("sem_seg_head" in names) == cfg.MODEL.SEG_REGULARIZER_ON
    outside = "context" in cfg.MODEL.ROI_HEADS.IN_FEATURES
    assert outside == hasattr(model.backbone, "context")
    # What is pooled is all that the backbone makes, but for what the proposals need.
    made = set(model.backbone.output_shape())
    assert made == {*cfg.MODEL.ROI_HEADS.IN_FEATURES, *cfg.MODEL.RPN.IN_FEATURES}


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_rows_of_a_table_differ_and_share_schedule_and_proposals(table):
    configs = [config_of(table, row) for row in table.rows]
    shared = [(c.SOLVER, c.MODEL.RPN, c.MODEL.VGG.WIDTH_MULTIPLIER, c.INPUT) for c in configs]
    assert shared.count(shared[0]) == len(shared)
    told = [(row.start, c) for row, c in zip(table.rows, configs)]
    assert all(told.count(one) == 1 for one in told)


# What configs/ion_study_context.yaml changes of the backbone.
BEHIND_A_START = ["MODEL.BACKBONE.FREEZE_AT", 4]


@pytest.mark.parametrize(
    ("table", "name", "config", "changes"),
    [
        ("outside-inside", "conv5", "faster_rcnn_demo.yaml", BEHIND_A_START),
        ("photographs", "plain", "faster_rcnn_tiny.yaml", []),
        ("real", "plain", "real/plain.yaml", []),
        ("real", "skip", "real/skip.yaml", []),
        ("real", "context, the paper's block", "real/ion_paper.yaml", []),
        ("real", "context, added", "real/ion.yaml", []),
    ],
)
def test_the_baseline_is_the_plain_detector_of_the_configs(table, name, config, changes):
    plain = load_config(str(ROOT / "configs" / config), changes)
    row = TABLES[table].row(name)
    cfg = config_of(TABLES[table], row)
    for part in ("ROI_BOX_HEAD", "SKIP_POOLER", "RPN", "BACKBONE", "ANCHOR_GENERATOR"):
        assert cfg.MODEL[part] == plain.MODEL[part], part
    assert cfg.MODEL.ROI_HEADS.IN_FEATURES == plain.MODEL.ROI_HEADS.IN_FEATURES


def scene_data(*names):
    for name in names:
        for data in TABLES[name].data:
            arguments = {k: v for k, v in data.scenes.items() if k not in ("train", "test")}
            yield TABLES[name], data, SceneSettings(**arguments)


def test_pictures_are_used_at_their_own_size():
    names = ("outside-inside", "layers", "norm", "context", "reach", "far", "start")
    for table, data, settings in scene_data(*names):
        sizes = config_of(table, table.rows[0], data).INPUT
        assert sizes.MIN_SIZE_TRAIN == (settings.size,) and sizes.MIN_SIZE_TEST == settings.size
        assert sizes.MAX_SIZE_TRAIN >= settings.size <= sizes.MAX_SIZE_TEST


def test_cues_are_out_of_sight_of_conv5_and_nothing_normalizes_over_a_picture():
    names = ("outside-inside", "layers", "norm", "context", "far", "start")
    for table, _, settings in scene_data(*names):
        assert settings.min_distance >= safe_distance(1.0)
        for row in table.rows:
            # What batch normalization does to the learning is one question of "start".
            named = table.name == "start" and row.name == "BatchNorm in the backbone"
            assert config_of(table, row).MODEL.VGG.NORM == ("BN" if named else "BRN")


# "norm" has no row without context that could tell its start.
WITHOUT_CONTEXT = ["MODEL.BACKBONE.NAME", "MODEL.ROI_HEADS.IN_FEATURES"]


@pytest.mark.parametrize("name", ["outside-inside", "layers", "norm", "context", "far", "reach"])
def test_all_rows_start_from_a_detector_without_context(name):
    table = TABLES[name]
    assert {row.start for row in table.rows} == set(table.starts)
    assert len(table.starts) == 1 or name == "layers"
    for start in table.starts.values():
        row = table.row(start.row)
        trained = config_of(table, replace(row, keys={**row.keys, **start.keys}))
        assert "context" not in trained.MODEL.ROI_HEADS.IN_FEATURES
        assert start.config.name == "ion_study_start.yaml"
        assert start.parts == ("backbone", "proposal_generator")
        # Its schedule and loss are those of that file, in every table.
        own = [key for key in start.keys if not key.startswith("INPUT.MIN_SIZE_")]
        assert own == (WITHOUT_CONTEXT if name == "norm" else [])
        assert (start.data is None) == (name != "reach")
        first = load_config(str(start.config))
        assert first.MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA == trained.MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA
        assert (first.MODEL.BACKBONE.FREEZE_AT, trained.MODEL.BACKBONE.FREEZE_AT) == (0, 4)


# The others start at random, or from their own row's training.
BEHIND_ANOTHER = [(table, row) for table, row in ROWS if row.start and table.starts[row.start].row]


@pytest.mark.parametrize(("table", "row"), BEHIND_ANOTHER, ids=lambda part: part.name)
def test_a_row_asks_for_the_amplitudes_of_what_it_starts_from(table, row):
    # They are in the backbone's weights: those that are loaded bring their own.
    first = table.row(table.starts[row.start].row)
    gains = [config_of(table, one).MODEL.VGG.GAINS for one in (row, first)]
    assert gains[0] == gains[1]


def test_tables_of_the_same_scenes_start_from_the_same_detector():
    same = Pictures("train", "test", {"scenes": "the same"})
    runs = [
        plan_runs(TABLES[name], "full", {"scenes": same}, {}, seeds=[1])[0]
        for name in ("outside-inside", "layers", "norm")
    ]
    assert runs[0].start.settings == runs[1].start.settings == runs[2].start.settings


def reach_of(kernel: int, convolutions: int) -> int:
    """Rows above a box that are seen by convolutions on conv5: its field, and RoIAlign's."""
    layers = [*vgg_conv5_layers(16), *[Layer(kernel, 1, kernel // 2)] * convolutions]
    field = receptive_field(layers)
    return int(1.5 * field.stride) - field.start


def test_the_context_table_hides_the_cue_from_convolutions():
    ((table, _, settings),) = scene_data("context")
    convolutions = [config_of(table, row).MODEL.CONTEXT for row in table.rows]
    convolutions = [c for c in convolutions if c.NAME == "Conv"]
    assert len(convolutions) == 2
    for context in convolutions:
        # 16 rows for proposals that begin above the object.
        assert settings.min_distance >= reach_of(context.KERNEL_SIZE, context.NUM_STACKS) + 16


def test_the_reach_table_goes_from_within_conv5_to_beyond_the_convolutions():
    distances = [settings.min_distance for _, _, settings in scene_data("reach")]
    assert distances == sorted(distances)
    assert distances[0] < reach_of(3, 0) < reach_of(5, 2) < distances[-1]
    sizes = [settings.size - settings.min_distance for _, _, settings in scene_data("reach")]
    assert len(set(sizes)) == 1  # lamps have as many rows to be in at every distance
