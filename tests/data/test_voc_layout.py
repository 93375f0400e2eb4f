import logging

import numpy as np
import pytest
from detectron2.data.datasets.pascal_voc import CLASS_NAMES
from detectron2.structures import BoxMode
from PIL import Image
from refusals import refused
from voc_folder import (
    BCCD,
    COCO_VOC20,
    annotation_xml,
    object_xml,
    write_image,
    write_label,
    write_split,
    write_voc,
)

from ion_d2.data.reading_on import reading_on
from ion_d2.data.voc_layout import find_classes, find_year, load_voc_layout

CAT = object_xml("cat", (5, 6, 15, 16))
DOG = object_xml("dog", (1, 1, 40, 30), "<difficult>1</difficult>")


@pytest.fixture
def folder(tmp_path):
    return write_voc(tmp_path / "set" / "VOC", {"b": [CAT, DOG], "a": []})


def load(root, split="train", classes=("cat", "dog")):
    return load_voc_layout(root, split, classes)


def test_loads_images_in_the_order_of_the_split(folder):
    first, second = load(folder)
    assert first["file_name"] == str(folder / "JPEGImages" / "b.jpg")
    assert (first["image_id"], first["height"], first["width"]) == ("b", 30, 40)
    cat, dog = first["annotations"]
    form = {"bbox_mode": BoxMode.XYXY_ABS, "iscrowd": 0}
    assert cat == {"bbox": [4.0, 5.0, 15.0, 16.0], "category_id": 0, "difficult": 0, **form}
    assert (dog["bbox"], dog["category_id"], dog["difficult"]) == ([0.0, 0.0, 40.0, 30.0], 1, 1)
    assert (second["image_id"], second["annotations"]) == ("a", [])
    assert "sem_seg_file_name" not in first


def test_names_are_equal_however_their_accents_are_stored(tmp_path):
    """macOS stores "u" and a mark for "ü"."""
    root = write_voc(tmp_path / "VOC", {"Mu\u0308ller": [CAT]})
    write_split(root, "train", "M\u00fcller\n")
    (record,) = load(root)
    assert len(record["annotations"]) == 1 and record["file_name"].endswith("Mu\u0308ller.jpg")


def test_pictures_in_subfolders_have_labels_beside_them_or_all_in_one_folder(tmp_path):
    for folder in ("Annotations/a", "JPEGImages/a", "JPEGImages/b", "SegmentationClass"):
        (tmp_path / folder).mkdir(parents=True)
    write_voc(tmp_path, {"a/im0": [CAT], "im1": [], "im0": [DOG]})
    (tmp_path / "JPEGImages/im1.jpg").rename(tmp_path / "JPEGImages/b/im1.jpg")
    write_split(tmp_path, "train", "a/im0\nb/im1\nim0\n")
    for name in ("im0", "im1"):
        write_label(tmp_path / f"SegmentationClass/{name}.png", np.zeros((30, 40)))
    dicts = load(tmp_path)
    assert [len(record["annotations"]) for record in dicts] == [1, 0, 1]
    labels = [record.get("sem_seg_file_name", "").rpartition("/")[2] for record in dicts]
    assert labels == ["", "im1.png", "im0.png"]


@pytest.mark.parametrize("extension", [".jpg", ".JPG", ".jpeg", ".JPEG", ".png", ".Png"])
def test_extensions_in_any_case(tmp_path, extension):
    write_voc(tmp_path, {"x.1": [CAT]}, extension=extension)
    (tmp_path / "Annotations" / "x.1.xml").rename(tmp_path / "Annotations" / "x.1.XML")
    (record,) = load(tmp_path)
    assert record["file_name"] == str(tmp_path / "JPEGImages" / f"x.1{extension}")
    assert len(record["annotations"]) == 1


def test_jpg_wins_over_png_and_hidden_files_do_not_count(tmp_path):
    write_voc(tmp_path, {"a": [CAT]}, extension=".png")
    write_image(tmp_path / "JPEGImages" / "a.jpg")
    (tmp_path / "Annotations" / "._a.xml").write_bytes(b"\0junk")
    (record,) = load(tmp_path, classes=find_classes(tmp_path))
    assert record["file_name"].endswith("a.jpg")


def test_boxes_are_clipped_and_those_without_extent_left_out_with_one_warning(tmp_path, caplog):
    clipped, edge, line, point = (0, -3, 50, 31), (39, 29, 99, 99), (7, 3, 7, 9), (7, 7, 7, 7)
    turned, outside, sliver = (20, 5, 10, 9), (41, 1, 60, 9), (40, 1, 60, 9)
    boxes = (clipped, edge, line, point, turned, outside, sliver)
    bad = [object_xml("cat", box) for box in boxes]
    write_voc(tmp_path, {"good": [CAT], "bad": bad, "worse": [object_xml("cat", line)]})
    with caplog.at_level(logging.WARNING):
        dicts = load(tmp_path)
    kept = [[a["bbox"] for a in record["annotations"]] for record in dicts]
    assert kept[1] == [[0.0, 0.0, 40.0, 30.0], [38.0, 28.0, 40.0, 30.0]]
    assert kept[2] == []
    (warning,) = [r.getMessage() for r in caplog.records if r.name.startswith("ion_d2")]
    assert "6 box(es)" in warning and "bad.xml" in warning


@pytest.mark.parametrize(
    ("orientation", "expected"), [(None, (24, 50)), (3, (24, 50)), (6, (50, 24)), (8, (50, 24))]
)
def test_a_missing_size_is_read_from_the_picture(tmp_path, orientation, expected):
    write_voc(tmp_path, {"a": []})
    (tmp_path / "Annotations" / "a.xml").write_text(annotation_xml([CAT], size=(0, 0)))
    exif = Image.Exif()
    if orientation is not None:
        exif[274] = orientation
    picture = write_image(tmp_path / "JPEGImages" / "a.jpg", size=(50, 24), exif=exif)
    (record,) = load(tmp_path)
    assert (record["height"], record["width"]) == expected
    picture.write_bytes(b"")
    with refused("a.jpg"):
        load(tmp_path)


def test_missing_files_and_classes_are_named(folder, tmp_path):
    with refused("b.xml", "'dog'", "cat, horse"):
        load(folder, classes=["cat", "horse"])
    (folder / "JPEGImages" / "a.jpg").unlink()
    with refused("JPEGImages", "a (", "'train'"):
        load(folder)
    write_image(folder / "JPEGImages" / "a.jpg")
    (folder / "Annotations" / "a.xml").unlink()
    with refused("a.xml"):
        load(folder)
    with refused("JPEGImages"):
        load(tmp_path / "nowhere")


def test_a_split_without_any_annotation_has_pictures_alone(folder, caplog):
    for path in (folder / "Annotations").iterdir():
        path.unlink()
    with caplog.at_level(logging.WARNING, logger="ion_d2"):
        dicts = load(folder)
    sizes = [(r["image_id"], r["height"], r["width"]) for r in dicts]
    assert sizes == [("b", 30, 40), ("a", 30, 40)]
    assert not any("annotations" in record for record in dicts)
    assert "no annotations" in caplog.text
    (folder / "Annotations").rmdir()
    assert len(load(folder)) == 2
    with refused("classes.txt", "Annotations"):
        find_classes(folder)


def test_vocs_test_set_keeps_its_labels_even_where_other_tasks_have_files(tmp_path):
    root = write_voc(tmp_path / "VOC2012", {"a": [object_xml("person", (1, 1, 9, 9))], "b": []})
    (root / "Annotations" / "b.xml").unlink()
    for split in ("test", "val"):
        write_split(root, split, "a\nb\n")
    assert not any("annotations" in r for r in load(root, "test", CLASS_NAMES))
    with reading_on() as noted:
        assert not any("annotations" in r for r in load(root, "test", CLASS_NAMES))
        assert ["annotations" in r for r in load(root, "val", CLASS_NAMES)] == [True, False]
    assert not noted
    for split, classes in (("val", CLASS_NAMES), ("test", ["person"])):
        with refused("1 of the 2", "b.xml"):
            load(root, split, classes)


@pytest.mark.parametrize(
    ("name", "element", "year"),
    [
        ("VOC2007", "", 2007),
        ("my-voc-2007", "<folder>VOC2012</folder>", 2007),
        ("VOC2012", "<folder>VOC2007</folder>", 2012),
        ("VOC", "<folder>VOC2007</folder>", 2007),
        ("VOC", "<folder>JPEGImages</folder>", 2012),
        ("VOC", "", 2012),
    ],
)
def test_the_year_is_that_of_the_folder_or_of_the_data(tmp_path, name, element, year):
    root = write_voc(tmp_path / name, {"a": [CAT]})
    path = root / "Annotations" / "a.xml"
    path.write_text(path.read_text().replace("<annotation>", f"<annotation>{element}"))
    assert find_year(root, "train") == year


def test_the_year_of_a_picture_in_a_subfolder(tmp_path):
    root = write_voc(tmp_path / "data", {"a": [CAT]})
    path = root / "Annotations" / "a.xml"
    path.write_text(
        path.read_text().replace("<annotation>", "<annotation><folder>VOC2007</folder>")
    )
    (root / "JPEGImages" / "sub").mkdir()
    (root / "JPEGImages" / "a.jpg").rename(root / "JPEGImages" / "sub" / "a.jpg")
    write_split(root, "train", "sub/a\n")
    assert find_year(root, "train") == 2007


def test_classes_are_the_sorted_names_of_the_objects(folder):
    part = "<part><name>paw</name></part><difficult>0</difficult>"
    xml = annotation_xml([object_xml("ant", (1, 1, 5, 5), part)])
    (folder / "Annotations" / "in_no_split.xml").write_text(xml)
    assert find_classes(folder) == ["ant", "cat", "dog"]


@pytest.mark.parametrize("where", [".", ".."])
@pytest.mark.parametrize("first", ["", "background\n", "__background__\r\n"])
def test_classes_txt_decides(folder, where, first):
    text = f"# ours\n{first}\n dog \ncat\r\n\nblack cat\n"
    (folder / ".." / "classes.txt").write_text("the parent's")
    (folder / where / "classes.txt").write_bytes(text.encode())
    assert find_classes(folder) == ["dog", "cat", "black cat"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "background\n", "cat\ndog\ncat\n"])
def test_a_useless_classes_txt_is_refused(folder, text):
    (folder / "classes.txt").write_text(text)
    with refused("classes.txt", "cat more than once" if "cat" in text else "names no class"):
        find_classes(folder)


@pytest.mark.skipif(not BCCD.is_dir(), reason="the BCCD data is not there")
def test_bccd_loses_only_its_two_boxes_without_extent(caplog):
    classes = find_classes(BCCD)
    assert classes == ["Platelets", "RBC", "WBC"]
    dicts = load(BCCD, "trainval", classes) + load(BCCD, "test", classes)
    assert len(dicts) == 364
    assert sum(len(record["annotations"]) for record in dicts) == 4888 - 2
    assert "BloodImage_00338.xml" in caplog.text
    assert {(record["width"], record["height"]) for record in dicts} == {(640, 480)}


@pytest.mark.skipif(not COCO_VOC20.is_dir(), reason="the coco_voc20 data is not there")
def test_coco_voc20_matches_its_readme_and_detectron2s_own_loader():
    from detectron2.data.datasets.pascal_voc import load_voc_instances

    classes = find_classes(COCO_VOC20)
    assert classes == list(CLASS_NAMES)
    dicts = [r for split in ("trainval", "test") for r in load(COCO_VOC20, split, classes)]
    annotations = [a for record in dicts for a in record["annotations"]]
    assert (len(dicts), len(annotations)) == (101, 619)
    assert sum(a["difficult"] for a in annotations) == 11
    assert sum("sem_seg_file_name" in record for record in dicts) == 101

    theirs = load_voc_instances(str(COCO_VOC20), "test", CLASS_NAMES)
    for mine, other in zip(dicts[71:], theirs):
        for key in ("file_name", "image_id", "height", "width"):
            assert mine[key] == other[key]
        pairs = [[(a["bbox"], a["category_id"]) for a in r["annotations"]] for r in (mine, other)]
        assert pairs[0] == pairs[1]
