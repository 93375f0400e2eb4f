"""Files of demo.py as datasets: what is refused (tests/test_demo_cli.py has what is read)."""

import json

import pytest
from detectron2.data import DatasetCatalog
from refusals import refused
from voc_folder import write_image

from ion_d2.data.catalog import ensure_registered

pytestmark = pytest.mark.usefixtures("catalogs")


def write(folder, content, classes="cat\n"):
    (folder / "found.json").write_text(content)
    (folder / "found.classes.txt").write_text(classes)
    return f"detections:{folder}/found.json"


def entry(folder, **changes):
    found = {"class": "cat", "class_id": 0, "score": 0.5, "box": [1, 2, 9, 9], **changes}
    write_image(folder / "a.jpg")
    picture = {"file": str(folder / "a.jpg"), "width": 40, "height": 30, "detections": [found]}
    return json.dumps([picture])


NONE = "found.json is no file of detections"
WRONG = {
    "{": "found.json cannot be read as JSON",
    "[1]": f"{NONE} of demo.py with these classes (TypeError",
    '[{"file": "a"}]': f"{NONE} of demo.py with these classes (KeyError: 'height'",
}


@pytest.mark.parametrize("text", WRONG)
def test_files_of_something_else_are_told(tmp_path, text):
    name = write(tmp_path, text)
    ensure_registered([name])
    with refused(WRONG[text]):
        DatasetCatalog.get(name)


def test_other_classes_and_boxes_are_told(tmp_path):
    name = write(tmp_path, entry(tmp_path, **{"class": "dog"}))
    ensure_registered([name])
    with refused("with these classes", "'dog' is not in list"):
        DatasetCatalog.get(name)
    write(tmp_path, entry(tmp_path, box=[1, 2, "x", 9]))
    with refused("a.jpg has an annotation with the bbox"):
        DatasetCatalog.get(name)
    (tmp_path / "found.classes.txt").unlink()
    with refused("found.classes.txt does not exist"):
        ensure_registered([f"detections:{tmp_path}/./found.json"])
