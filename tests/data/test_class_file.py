"""One class has one spelling, wherever its name comes from."""

import unicodedata

import pytest
from box_helpers import register_dicts
from detectron2.data import DatasetCatalog
from refusals import refused
from voc_folder import object_xml, write_voc

from ion_d2.data.catalog import class_names, ensure_registered
from ion_d2.data.class_file import class_file_text, read_class_file

pytestmark = pytest.mark.usefixtures("catalogs")

NFC = "Äpfel"
NFD = unicodedata.normalize("NFD", NFC)
BOX = (1, 1, 20, 20)


@pytest.mark.parametrize(
    ("listed", "labeled", "name"),
    [
        (None, (NFC, NFD), NFC),
        (NFD, (NFC, NFC), NFC),
        (NFC, (NFD, NFC), NFC),
        (None, ("traffic\n   light", "traffic light"), "traffic light"),
        ("traffic\tlight ", (" traffic  light", "traffic\nlight"), "traffic light"),
        ("x" * 300, ("x" * 300, "x" * 300), "x" * 300),
    ],
)
def test_spellings_of_one_class(tmp_path, listed, labeled, name):
    images = {f"im{n}": [object_xml(label, BOX)] for n, label in enumerate(labeled)}
    root = write_voc(tmp_path / "VOC", images)
    if listed:
        (root / "classes.txt").write_text(listed, encoding="utf-8")
    dataset = f"voc:{root}:train"
    assert class_names([dataset]) == [name]
    found = [record["annotations"][0]["category_id"] for record in DatasetCatalog.get(dataset)]
    assert found == [0, 0]


@pytest.mark.parametrize("text", [f"{NFC}\n{NFD}\n", "a  b\na b\n", "cat\n cat \n"])
def test_one_class_twice_in_a_file_is_told(tmp_path, text):
    root = write_voc(tmp_path / "VOC", {"a": [object_xml("cat", BOX)]})
    (root / "classes.txt").write_text(text, encoding="utf-8")
    with refused("classes.txt", "more than once"):
        ensure_registered([f"voc:{root}:train"])


@pytest.mark.parametrize(
    "names",
    [
        ["cat", "background", "#1"],
        ["background"],
        ["__background__", "cat"],
        ["#1 bolt", "nut"],
        ["background", "#", "\\#", "\\\\#2", "\\x"],
    ],
)
def test_a_file_holds_every_name(tmp_path, names):
    path = tmp_path / "classes.txt"
    path.write_text(class_file_text(names), encoding="utf-8")
    assert read_class_file(str(path)) == names


def test_usual_names_are_written_as_they_are():
    assert class_file_text(["cat", "traffic light"]) == "cat\ntraffic light\n"


@pytest.mark.parametrize(
    ("classes", "word"),
    [
        (["cat", "traffic\nlight"], r"traffic\nlight"),
        (["cat\t"], r"cat\t"),
        (["cat", ""], "''"),
        (["cat", "  "], "'  '"),
        ([1, 2], "class 1"),
        (["cat", "dog", "cat"], "cat more than once"),
        ([NFC, NFD], "more than once"),
    ],
)
def test_names_of_registered_sets_that_are_told(classes, word):
    register_dicts("mine", [], thing_classes=classes)
    with refused("'mine'", word):
        class_names(["mine"])


def test_forms_of_a_name_do_not_make_two_sets_different():
    register_dicts("one", [], thing_classes=[NFC, "a  b"])
    register_dicts("other", [], thing_classes=[NFD, " a b "])
    assert class_names(["one", "other"]) == [NFC, "a b"]
