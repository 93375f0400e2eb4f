"""What tools/check_dataset.py says of objects that a training leaves out."""

import pytest
from conversions import yolo_of
from dataset_checks import SIZE, check, write_coco
from detectron2.data import DatasetCatalog
from PIL import Image
from voc_folder import annotation_xml, object_xml, write_image, write_split

from ion_d2.data import ensure_registered

CROWD, DOG = {"iscrowd": 1}, {"category_id": 2}


@pytest.mark.parametrize(
    ("objects", "rules", "words"),
    [
        (({}, DOG), (), ""),
        (({}, DOG, {**DOG, **CROWD}), ("not-learned",), "1 of 3 objects (1 crowds, 0 difficult)"),
        (({}, {**DOG, **CROWD}), ("unused-class", "not-learned"), "1 of 2 objects"),
        ((CROWD, {**DOG, **CROWD}), ("nothing-learned",), "2 of 2 objects (2 crowds, 0 difficult)"),
    ],
)
def test_what_a_training_leaves_out_is_told(tmp_path, objects, rules, words):
    """CVAT, for instance, exports masks as crowds."""
    for index in range(len(objects)):
        Image.new("RGB", SIZE, (index, 90, 9)).save(tmp_path / f"{chr(97 + index)}.png")
    code, _, places = check(tmp_path, write_coco(tmp_path, *objects))
    assert code == ("nothing-learned" in rules) and sorted(places) == sorted(rules)
    if rules:
        (place,) = places[rules[-1]]
        assert place.startswith(words)


def test_difficult_objects_are_learned_where_the_config_says_so(tmp_path):
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (tmp_path / folder).mkdir(parents=True)
    difficult = object_xml("cat", (10, 10, 33, 33), "<difficult>1</difficult>")
    (tmp_path / "Annotations/a.xml").write_text(annotation_xml([difficult], SIZE))
    write_image(tmp_path / "JPEGImages/a.jpg", SIZE)
    write_split(tmp_path, "train", "a")
    for use, rules in (("False", ["nothing-learned"]), ("True", [])):
        config = ["--config-file", "configs/ion_tiny.yaml", "DATASETS.USE_DIFFICULT", use]
        code, _, places = check(tmp_path, f"voc:{tmp_path}:train", *config)
        found = [rule for rule in places if rule != "weak-anchor"]
        assert (code, found) == (len(rules), rules)


def test_a_training_learns_a_box_of_coco_that_is_a_pixel_wide_as_its_rule_says(tmp_path, catalogs):
    Image.new("RGB", SIZE).save(tmp_path / "a.png")
    name = write_coco(tmp_path, {"bbox": [20, 10, 1, 20]})
    assert "learns the rest" in check(tmp_path, name)[1].replace("\n  ", " ")
    ensure_registered([name])
    assert len(DatasetCatalog.get(name)[0]["annotations"]) == 1


@pytest.mark.parametrize("labeled", [False, True])
def test_a_set_with_nothing_to_learn_is_not_sound(tmp_path, labeled):
    """A training refuses it."""
    name = yolo_of(tmp_path / "set", ["cat"], "" if labeled else "0 .5 .5 .2 .2")
    if not labeled:
        (tmp_path / "set/labels").rename(tmp_path / "set/Labels")
    code, _, places = check(tmp_path, name)
    assert code == 1
    assert set(places) == ({"nothing-learned", "no-boxes"} if labeled else {"missing-label"})
