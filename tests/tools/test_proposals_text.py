"""CSV and JSON."""

import json

import numpy as np
import pytest
from proposals_text import read_csv, read_json

from ion_d2.errors import IONError

READERS = {"csv": read_csv, "json": read_json}


def read(tmp_path, kind, content):
    path = tmp_path / f"p.{kind}"
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    return READERS[kind](path)


def test_csv_with_scores_in_any_order_of_columns(tmp_path):
    text = "score,image_id,x0,y0,x1,y1,note\n.5,b,1,2,3,4,x\n.25,a,0,0,1e1,1,y\n.75,b,5,6,7,8,z\n"
    found = read(tmp_path, "csv", "\ufeff" + text)
    assert found.ids == ["b", "a"]
    np.testing.assert_array_equal(found.boxes[0], [[1, 2, 3, 4], [5, 6, 7, 8]])
    np.testing.assert_array_equal(found.scores[0], [0.5, 0.75])
    np.testing.assert_array_equal(found.boxes[1], [[0, 0, 10, 1]])


def test_csv_without_scores_is_sorted(tmp_path):
    found = read(tmp_path, "csv", "image_id,x0,y0,x1,y1\n7,1,2,3,4\n7,0,0,1,1\n")
    assert found.ids == ["7"]
    np.testing.assert_array_equal(found.scores[0], [0, -1])


def test_json_as_coco_results(tmp_path):
    rows = [
        {"image_id": 42, "category_id": 1, "bbox": [10, 20, 5, 6], "score": 0.5},
        {"image_id": 7, "bbox": [0, 0, 1, 1], "score": 1},
        {"image_id": 42.0, "bbox": [0.5, 0, 1, 2], "score": 0.1},
    ]
    found = read(tmp_path, "json", rows)
    assert found.ids == [42, 7]
    np.testing.assert_array_equal(found.boxes[0], [[10, 20, 15, 26], [0.5, 0, 1.5, 2]])
    np.testing.assert_allclose(found.scores[0], [0.5, 0.1])


def test_json_as_a_mapping(tmp_path):
    rows = {"a": [[0, 1, 2, 3, 0.5], [1, 1, 2, 2, 0.75]], "b": [[0, 0, 1, 1]], "none": []}
    found = read(tmp_path, "json", rows)
    assert found.ids == ["a", "b", "none"] and found.boxes[2].shape == (0, 4)
    np.testing.assert_array_equal(found.boxes[0], [[0, 1, 2, 3], [1, 1, 2, 2]])
    np.testing.assert_array_equal(found.scores[0], np.float32([0.5, 0.75]))
    np.testing.assert_array_equal(found.scores[1], [0])


HEAD = "image_id,x0,y0,x1,y1,score\n"


@pytest.mark.parametrize(
    ("kind", "content", "words"),
    [
        ("csv", "", "no column image_id, x0"),
        ("csv", "image_id,x0,y0,w,h\n", "no column x1, y1"),
        ("csv", HEAD + "a,1,2,3,4,1\nb,1,2,three,4,1\n", "line 3, image 'b'.*three"),
        ("csv", HEAD + "a,1,2,3\n", "line 2, image 'a'"),
        ("csv", HEAD + "a,1,2,3,4,nan\n", "image 'a'.*score 0 is nan"),
        ("csv", HEAD + "a,1,2,3,4,\n", "image 'a'"),
        ("csv", HEAD + "a,3,2,1,4,1\n", "image 'a'"),
        ("json", "{", "JSON"),
        ("json", 5, "int"),
        ("json", [{"bbox": [0, 0, 1, 1]}], "entry 0.*image_id"),
        ("json", [7], "entry 0.*image_id"),
        ("json", [{"image_id": True, "bbox": [0, 0, 1, 1]}], "entry 0.*image_id"),
        ("json", [{"image_id": None, "bbox": [0, 0, 1, 1]}], "entry 0.*image_id"),
        ("json", [{"image_id": 3, "bbox": [0, 0, 1]}], "entry 0.*bbox"),
        ("json", [{"image_id": 3, "bbox": [0, 0, 1, None]}], "entry 0.*bbox"),
        ("json", [{"image_id": 3, "bbox": [0, 0, 1, 1], "score": "x"}], "entry 0.*image 3"),
        ("json", {"a": [[0, 0, 1, 1, float("nan")]]}, "image 'a'.*score 0 is nan"),
        ("json", {"a": [[0, 0, 1, 1, float("inf")]]}, "image 'a'.*score 0 is inf"),
        ("json", {"a": [[0, 0, 1, 1, 1], [0, 0, 1, 1]]}, "image 'a'.*1 of its 2 boxes"),
        ("json", {"a": [0, 0, 1, 1]}, "image 'a'.*0"),
        ("json", {"a": 3}, "image 'a'"),
    ],
)
def test_faults_are_told_with_file_and_place(tmp_path, kind, content, words):
    with pytest.raises(IONError, match=rf"p\.{kind}.*{words}"):
        read(tmp_path, kind, content)


@pytest.mark.parametrize("kind", READERS)
def test_missing_files(tmp_path, kind):
    with pytest.raises(IONError, match="gone"):
        READERS[kind](tmp_path / "gone")
