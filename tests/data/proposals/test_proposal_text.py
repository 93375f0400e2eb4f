"""CSV and JSON."""

import json

import numpy as np
import pytest

from ion_d2.data.proposals.text import read_csv, read_json
from ion_d2.errors import IONError


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return path


def test_csv_with_scores_in_any_order_of_columns(tmp_path):
    text = "score,image_id,x0,y0,x1,y1,note\n.5,b,1,2,3,4,x\n.25,a,0,0,1e1,1,y\n.75,b,5,6,7,8,z\n"
    read = read_csv(written(tmp_path, "p.csv", "\ufeff" + text))
    assert read.ids == ["b", "a"]
    np.testing.assert_array_equal(read.boxes[0], [[1, 2, 3, 4], [5, 6, 7, 8]])
    np.testing.assert_array_equal(read.scores[0], [0.5, 0.75])
    np.testing.assert_array_equal(read.boxes[1], [[0, 0, 10, 1]])


def test_csv_without_scores_is_sorted(tmp_path):
    read = read_csv(written(tmp_path, "p.csv", "image_id,x0,y0,x1,y1\n7,1,2,3,4\n7,0,0,1,1\n"))
    assert read.ids == ["7"]
    np.testing.assert_array_equal(read.scores[0], [0, -1])


def test_json_as_coco_results(tmp_path):
    rows = [
        {"image_id": 42, "category_id": 1, "bbox": [10, 20, 5, 6], "score": 0.5},
        {"image_id": 7, "bbox": [0, 0, 1, 1], "score": 1},
        {"image_id": 42, "bbox": [0.5, 0, 1, 2], "score": 0.1},
    ]
    read = read_json(written(tmp_path, "p.json", rows))
    assert read.ids == [42, 7]
    np.testing.assert_array_equal(read.boxes[0], [[10, 20, 15, 26], [0.5, 0, 1.5, 2]])
    np.testing.assert_allclose(read.scores[0], [0.5, 0.1])


def test_json_as_a_mapping(tmp_path):
    rows = {"a": [[0, 1, 2, 3, 0.5], [1, 1, 2, 2, 0.75]], "b": [[0, 0, 1, 1]], "none": []}
    read = read_json(written(tmp_path, "p.json", rows))
    assert read.ids == ["a", "b", "none"] and read.boxes[2].shape == (0, 4)
    np.testing.assert_array_equal(read.boxes[0], [[0, 1, 2, 3], [1, 1, 2, 2]])
    np.testing.assert_array_equal(read.scores[1], [0])


HEAD = "image_id,x0,y0,x1,y1,score\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column image_id, x0"),
        ("image_id,x0,y0,w,h\n", "no column x1, y1"),
        (HEAD + "a,1,2,3,4,1\nb,1,2,three,4,1\n", "line 3, image 'b'.*three"),
        (HEAD + "a,1,2,3\n", "line 2, image 'a'.*not a number"),
        (HEAD + "a,1,2,3,4,nan\n", "image 'a'.*score 0 is nan"),
        (HEAD + "a,1,2,3,4,\n", "image 'a'.*not a number"),
        (HEAD + "a,3,2,1,4,1\n", "image 'a'.*right or bottom"),
    ],
)
def test_faulty_csv_is_told(tmp_path, text, words):
    with pytest.raises(IONError, match=rf"p\.csv.*{words}"):
        read_csv(written(tmp_path, "p.csv", text))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{", "not readable JSON"),
        (5, "holds a int"),
        ([{"bbox": [0, 0, 1, 1]}], "entry 0.*image_id"),
        ([7], "entry 0.*image_id"),
        ([{"image_id": 3, "bbox": [0, 0, 1]}], "entry 0, image 3: .* 4 numbers"),
        ([{"image_id": 3, "bbox": [0, 0, 1, None]}], "entry 0, image 3: .*not a number"),
        ({"a": [[0, 0, 1, 1, float("nan")]]}, "image 'a'.*score 0 is nan"),
        ({"a": [[0, 0, 1, 1, float("inf")]]}, "image 'a'.*score 0 is inf"),
        ({"a": [[0, 0, 1, 1, 1], [0, 0, 1, 1]]}, "image 'a'.*1 of its 2 boxes have no score"),
        ({"a": [0, 0, 1, 1]}, "image 'a'.*not a box"),
        ({"a": 3}, "image 'a'.*not a list"),
    ],
)
def test_faulty_json_is_told(tmp_path, value, words):
    with pytest.raises(IONError, match=rf"p\.json.*{words}"):
        read_json(written(tmp_path, "p.json", value))


def test_missing_files(tmp_path):
    for read in (read_csv, read_json):
        with pytest.raises(IONError, match="gone"):
            read(tmp_path / "gone")
