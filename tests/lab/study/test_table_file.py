"""Tables as YAML: the format, and what is said of mistakes; settings that tell runs apart."""

from __future__ import annotations

import textwrap

import pytest
from study_helpers import ROOT, write_table

from ion_d2.errors import IONError
from ion_lab.study import read_table, table_file
from ion_lab.study.run_settings import as_overrides, run_settings, same_settings
from ion_lab.study.study_data import Pictures

CONFIG = ROOT / "configs" / "ion_tiny.yaml"


def test_the_example_of_the_format_can_be_read(tmp_path):
    example = table_file.__doc__.split("\n\n")[1]
    path = tmp_path / "example.yaml"
    path.write_text(textwrap.dedent(example))
    table = read_table(path)
    assert (table.name, table.plot, table.baseline) == ("example", "bars", "conv5")
    assert table.config == (tmp_path / "../ion_study.yaml").resolve()
    scenes, cells = table.data
    assert scenes.scenes == {"train": 600, "test": 100} and scenes.train == "trainval"
    assert (cells.folder, cells.test, cells.keys) == ("bccd", "test", {"SOLVER.MAX_ITER": 1500})
    assert [row.start for row in table.rows] == ["", "pretrained", ""]
    assert table.trained(table.rows[2]) == table.rows[1] == table.trained(table.rows[1])
    assert "start" not in table.rows[0].keys
    assert table.starts["pretrained"].config == (tmp_path / "../ion_tiny.yaml").resolve()
    assert table.cuts["full"].seeds == (0, 1, 2)
    assert [row.name for row in table.rows_of("quick")] == ["conv5", "skip"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"title": ""}, "has no title"),
        ({"rows": {}}, "has no rows"),
        ({"colums": {}}, "unknown field colums"),
        ({"rows": {"a": [1]}}, "rows.a is not a mapping"),
        ({"baseline": "b"}, "baseline is 'b'"),
        ({"plot": "pie"}, "plot is 'pie'"),
        ({"rows": {"conv5": {"start": "x"}}}, "start of a row is 'x'"),
        ({"starts": {"x": {"row": "b"}}}, "row of a start is 'b'"),
        ({"starts": {"x": {"row": None, "what": 1}}}, "starts.x has an unknown field what"),
        ({"rows": {"a": {"weights_of": "b"}}, "baseline": ""}, "weights_of is 'b', expected one"),
        ({"rows": {"a": {"weights_of": "a"}}, "baseline": ""}, "weights_of is 'a', expected one"),
        ({"rows": {"a": {"weights_of": "conv5", "SEED": 1}}}, "trains no model.*sets SEED"),
        ({"starts": {"x": {"scenes": {"train": 1}}}}, "starts.x.scenes has no test"),
        ({"starts": {"x": {"what": 1}}}, "starts.x has an unknown field what"),
        ({"starts": {"x": {"parts": []}}}, "starts.x.parts is not a list of parts"),
        ({"starts": {"x": {"parts": ["head"]}}}, "one of starts.x.parts is 'head'.*roi_heads"),
        ({"full": {"seeds": 3}}, "full.seeds"),
        ({"full": {"seeds": [-1]}}, "full.seeds"),
        ({"full": {"seeds": [0, 1, 0]}}, "full.seeds names a seed twice"),
        ({"quick": {"seeds": [0], "rows": ["x"]}}, "row of quick is 'x'"),
        ({"quick": {"seeds": [0], "rows": "conv5"}}, "quick.rows"),
        ({"data": {"a": {}}}, "data.a needs either"),
        ({"data": {"a": {"scenes": {"train": 1}}}}, "data.a.scenes has no test"),
        ({"data": {"a": {"scenes": {"train": 1, "test": 1, "x": 1}}}}, "unknown field x"),
        (
            {"data": {"a": {"scenes": {"train": "6", "test": 1}}}},
            "scenes.train is '6', not",
        ),
        ({"data": {"a": {"scenes": {"train": 1, "test": 1, "families": 3}}}}, "families is 3"),
        ({"columns": {"a": 3}}, "columns.a"),
        ({"columns": {"a": "clases/b"}}, "beginning of columns.a is 'clases'.*classes"),
        ({"columns": {"a": "classes/*/area/AP5"}}, "columns.a is classes/\\*/area/AP5, where"),
    ],
)
def test_mistakes_are_named_with_the_file(tmp_path, changes, message):
    path = write_table(tmp_path, **changes)
    with pytest.raises(IONError, match=message) as error:
        read_table(path)
    assert str(path) in str(error.value)


def test_rows_may_have_the_names_of_numbers(tmp_path):
    changes = {"rows": {16: {}, 32: {}}, "baseline": "", "quick": {"seeds": [0], "rows": [16]}}
    assert [row.name for row in read_table(write_table(tmp_path, **changes)).rows_of("quick")] == [
        "16"
    ]


def test_unreadable_files_are_named(tmp_path):
    path = tmp_path / "bad.yaml"
    for text in ("{", "[1]", "just words", "rows:\n  a: 1\n  b: 2\n  a: 3\n"):
        path.write_text(text)
        with pytest.raises(IONError, match="bad.yaml") as told:
            read_table(path)
    assert "a is there twice" in str(told.value) and "line 4" in str(told.value)
    with pytest.raises(IONError, match="none.yaml"):
        read_table(tmp_path / "none.yaml")


def settings(*overrides, pictures=None, start=None, parts=None):
    pictures = Pictures("train", "test", pictures or {"labels": ["a"]})
    return run_settings(CONFIG, list(overrides), pictures, start, parts)


def test_overrides_are_words_of_a_command_line():
    keys = {"A.B": ["conv5"], "A.C": True, "A.D": "GN", "A.E": "", "A.F": 0.5}
    words = ["A.B", "['conv5']", "A.C", "True", "A.D", "GN", "A.E", "", "A.F", "0.5"]
    assert as_overrides(keys) == words


def test_what_makes_another_run_and_what_does_not():
    base = settings("SEED", "1")
    assert same_settings(base, settings("SEED", "1", "OUTPUT_DIR", "x", "MODEL.DEVICE", "cpu"))
    for other in (
        settings("SEED", "2"),
        settings("SEED", "1", "MODEL.CONTEXT.TRANSITION", "full"),
        settings("SEED", "1", pictures={"labels": ["b"]}),
        settings("SEED", "1", start=base),
    ):
        assert not same_settings(base, other) and not same_settings(other, base)
    started = settings("SEED", "1", start=base)
    assert same_settings(started, settings("SEED", "1", start=settings("SEED", "1")))
    assert not same_settings(started, settings("SEED", "1", start=settings("SEED", "2")))


def test_a_segmentation_head_that_is_not_built_makes_no_other_run():
    gain = ("MODEL.SEM_SEG_HEAD.INIT_GAIN", "0.5")
    assert same_settings(settings(), settings(*gain))
    on = ("MODEL.SEG_REGULARIZER_ON", "True")
    assert not same_settings(settings(*on), settings(*on, *gain))


def test_a_number_of_proposals_that_are_not_loaded_makes_no_other_run():
    number = ("DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST", "7")
    assert same_settings(settings(), settings(*number))
    loaded = ("MODEL.LOAD_PROPOSALS", "True")
    assert not same_settings(settings(*loaded), settings(*loaded, *number))


def test_what_is_taken_over_of_a_start_counts():
    base = settings("SEED", "1")
    whole = settings("SEED", "1", start=base)
    part = settings("SEED", "1", start=base, parts=("backbone",))
    assert not same_settings(part, whole) and not same_settings(whole, part)
    assert same_settings(part, settings("SEED", "1", start=base, parts=("backbone",)))
    # A note of earlier versions does not have the field: such runs took over all.
    del whole["parts"]
    assert same_settings(whole, settings("SEED", "1", start=base))
    assert not same_settings(whole, part)


def test_keys_that_came_later_count_as_their_defaults():
    old = settings()
    del old["config"]["MODEL.CONTEXT.INIT"]  # as if it was made before the key was there
    old["config"]["MODEL.GONE"] = 1
    assert same_settings(old, settings())
    assert not same_settings(old, settings("MODEL.CONTEXT.INIT", "pass_through"))
