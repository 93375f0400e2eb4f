import logging

import numpy as np
import pytest
from detectron2.data.datasets.pascal_voc import CLASS_NAMES
from detectron2.structures import BoxMode
from PIL import Image
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

from ion_d2.data.voc_layout import find_classes, find_year, load_voc_layout
from ion_d2.data.voc_split import read_split
from ion_d2.errors import IONError

CAT = object_xml("cat", (5, 6, 15, 16))
DOG = object_xml("dog", (1, 1, 40, 30), "<difficult>1</difficult>")


@pytest.fixture
def folder(tmp_path):
    return write_voc(tmp_path / "set" / "VOC", {"b": [CAT, DOG], "a": []})


def ids(dicts):
    return [record["image_id"] for record in dicts]


def test_loads_images_in_the_order_of_the_split(folder):
    first, second = load_voc_layout(folder, "train", ["cat", "dog"])
    assert first["file_name"] == str(folder / "JPEGImages" / "b.jpg")
    assert (first["image_id"], first["height"], first["width"]) == ("b", 30, 40)
    cat, dog = first["annotations"]
    assert cat == {
        "bbox": [4.0, 5.0, 15.0, 16.0],
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": 0,
        "difficult": 0,
        "iscrowd": 0,
    }
    assert (dog["bbox"], dog["category_id"], dog["difficult"]) == ([0.0, 0.0, 40.0, 30.0], 1, 1)
    assert (second["image_id"], second["annotations"]) == ("a", [])
    assert "sem_seg_file_name" not in first


def test_annotations_with_their_extension_in_capitals(folder):
    (folder / "Annotations" / "b.xml").rename(folder / "Annotations" / "b.XML")
    first, _ = load_voc_layout(folder, "train", ["cat", "dog"])
    assert len(first["annotations"]) == 2


def test_names_are_equal_however_their_accents_are_stored(tmp_path):
    """macOS stores "u" and a mark for "ü"."""
    root = write_voc(tmp_path / "VOC", {"Mu\u0308ller": [CAT]})
    write_split(root, "train", "M\u00fcller\n")
    (record,) = load_voc_layout(root, "train", ["cat"])
    assert len(record["annotations"]) == 1 and record["file_name"].endswith("Mu\u0308ller.jpg")


def test_a_missing_picture_whose_name_ends_like_a_flag(folder):
    write_split(folder, "odd", "photo 1\n")
    expect_error("'odd'", "photo 1 (", root=folder, split="odd")


def test_segmentation_labels_are_found_by_id(folder):
    (folder / "SegmentationClass").mkdir()
    label = write_label(folder / "SegmentationClass" / "a.png", np.zeros((30, 40)))
    first, second = load_voc_layout(folder, "train", ["cat", "dog"])
    assert "sem_seg_file_name" not in first
    assert second["sem_seg_file_name"] == str(label)


@pytest.mark.parametrize("extension", [".jpg", ".JPG", ".jpeg", ".JPEG", ".png", ".Png"])
def test_picture_extensions_in_any_case(tmp_path, extension):
    write_voc(tmp_path, {"x.1": [CAT]}, extension=extension)
    (record,) = load_voc_layout(tmp_path, "train", ["cat"])
    assert record["file_name"] == str(tmp_path / "JPEGImages" / f"x.1{extension}")


def test_jpg_wins_over_png_and_hidden_files_do_not_count(tmp_path):
    write_voc(tmp_path, {"a": [CAT]}, extension=".png")
    write_image(tmp_path / "JPEGImages" / "a.jpg")
    (tmp_path / "Annotations" / "._a.xml").write_bytes(b"\0junk")
    (record,) = load_voc_layout(tmp_path, "train", find_classes(tmp_path))
    assert record["file_name"].endswith("a.jpg")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("b", ["b"]),
        ("b\r\na\r\n", ["b", "a"]),
        ("\n\n  b \n\n", ["b"]),
        ("\ufeffb\n", ["b"]),
        ("b -1\na  1\n", ["b", "a"]),
        ("b\t0", ["b"]),
    ],
)
def test_split_files_as_they_come(folder, text, expected):
    write_split(folder, "odd", text)
    assert ids(load_voc_layout(folder, "odd", ["cat", "dog"])) == expected


def test_ids_with_spaces(tmp_path):
    write_voc(tmp_path, {"my cat 1": [CAT], "my cat": []})
    assert ids(load_voc_layout(tmp_path, "train", ["cat"])) == ["my cat 1", "my cat"]
    write_split(tmp_path, "flags", "my cat 1 -1\nmy cat 0\n")
    assert ids(load_voc_layout(tmp_path, "flags", ["cat"])) == ["my cat 1", "my cat"]


def test_boxes_are_clipped_and_those_without_extent_left_out_with_one_warning(tmp_path, caplog):
    boxes = {
        "clipped": (0, -3, 50, 31),
        "edge": (39, 29, 99, 99),
        "line": (7, 3, 7, 9),
        "point": (7, 7, 7, 7),
        "reversed": (20, 5, 10, 9),
        "outside": (41, 1, 60, 9),
        "sliver": (40, 1, 60, 9),
    }
    objects = [object_xml("cat", box) for box in boxes.values()]
    write_voc(tmp_path, {"good": [CAT], "bad": objects, "worse": [objects[2]]})
    with caplog.at_level(logging.WARNING):
        dicts = load_voc_layout(tmp_path, "train", ["cat"])
    kept = [[a["bbox"] for a in record["annotations"]] for record in dicts]
    assert kept[1] == [[0.0, 0.0, 40.0, 30.0], [38.0, 28.0, 40.0, 30.0]]
    assert kept[2] == []
    (warning,) = [r.getMessage() for r in caplog.records if r.name.startswith("ion_d2")]
    assert "6 box(es)" in warning
    assert "bad.xml" in warning


@pytest.mark.parametrize(
    ("orientation", "expected"), [(None, (24, 50)), (3, (24, 50)), (6, (50, 24)), (8, (50, 24))]
)
def test_a_missing_size_is_read_from_the_picture(tmp_path, orientation, expected):
    write_voc(tmp_path, {"a": []})
    (tmp_path / "Annotations" / "a.xml").write_text(annotation_xml([CAT], size=(0, 0)))
    exif = Image.Exif()
    if orientation is not None:
        exif[274] = orientation
    write_image(tmp_path / "JPEGImages" / "a.jpg", size=(50, 24), exif=exif)
    (record,) = load_voc_layout(tmp_path, "train", ["cat"])
    assert (record["height"], record["width"]) == expected


def expect_error(*words, root, split="train", classes=("cat", "dog")):
    with pytest.raises(IONError) as caught:
        load_voc_layout(root, split, classes)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_an_unknown_class_is_named_with_the_known_ones(folder):
    expect_error("b.xml", "'dog'", "cat, horse", root=folder, classes=["cat", "horse"])


def test_missing_files_are_named(folder):
    (folder / "JPEGImages" / "a.jpg").unlink()
    expect_error("JPEGImages", "a (", "'train'", root=folder)
    write_image(folder / "JPEGImages" / "a.jpg")
    (folder / "Annotations" / "a.xml").unlink()
    expect_error("a.xml", root=folder)


def test_a_split_without_any_annotation_has_pictures_alone(folder, caplog):
    for path in (folder / "Annotations").iterdir():
        path.unlink()
    with caplog.at_level(logging.WARNING, logger="ion_d2"):
        dicts = load_voc_layout(folder, "train", ["cat", "dog"])
    assert [(r["image_id"], r["height"], r["width"]) for r in dicts] == [
        ("b", 30, 40),
        ("a", 30, 40),
    ]
    assert not any("annotations" in record for record in dicts)
    assert "no annotations" in caplog.text
    (folder / "Annotations").rmdir()
    assert len(load_voc_layout(folder, "train", ["cat"])) == 2
    with pytest.raises(IONError, match=r"classes\.txt"):
        find_classes(folder)


def test_vocs_test_set_keeps_its_labels_even_where_other_tasks_have_files(tmp_path):
    root = write_voc(tmp_path / "VOC2012", {"a": [object_xml("person", (1, 1, 9, 9))], "b": []})
    (root / "Annotations" / "b.xml").unlink()
    for split in ("test", "val"):
        write_split(root, split, "a\nb\n")
    assert not any("annotations" in r for r in load_voc_layout(root, "test", CLASS_NAMES))
    for split, classes in (("val", CLASS_NAMES), ("test", ["person"])):
        expect_error("1 of the 2", "b.xml", root=root, split=split, classes=classes)


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


def test_a_missing_split_lists_those_there_are(folder):
    write_split(folder, "val", "a\n")
    expect_error("trainval.txt", "train, val", root=folder, split="trainval")


def test_missing_folders_are_named(tmp_path):
    expect_error("JPEGImages", root=tmp_path / "nowhere")
    (tmp_path / "JPEGImages").mkdir()
    expect_error("train.txt", "none", root=_with_empty_main(tmp_path))
    with pytest.raises(IONError, match="Annotations"):
        find_classes(tmp_path)


def _with_empty_main(root):
    (root / "ImageSets" / "Main").mkdir(parents=True)
    return root


@pytest.mark.parametrize("text", ["", "\n \r\n"])
def test_an_empty_split_is_refused(folder, text):
    write_split(folder, "empty", text)
    expect_error("empty.txt", "no image", root=folder, split="empty")


@pytest.mark.parametrize("text", ["a\nb\na\n", "a\na 1\n"])
def test_an_image_named_twice_is_refused(folder, text):
    write_split(folder, "twice", text)
    expect_error("'twice'", "'a'", root=folder, split="twice")


def test_a_split_that_is_not_text_is_refused(folder):
    (folder / "ImageSets" / "Main" / "bytes.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(IONError, match=r"bytes\.txt"):
        read_split(folder, "bytes")


def test_a_broken_picture_without_a_size_in_its_annotation(folder):
    (folder / "Annotations" / "a.xml").write_text(annotation_xml(size=None))
    (folder / "JPEGImages" / "a.jpg").write_bytes(b"")
    expect_error("a.jpg", root=folder)


def test_classes_are_the_sorted_names_of_the_objects(folder):
    part = "<part><name>paw</name></part><difficult>0</difficult>"
    xml = annotation_xml([object_xml("ant", (1, 1, 5, 5), part)])
    (folder / "Annotations" / "in_no_split.xml").write_text(xml)
    assert find_classes(folder) == ["ant", "cat", "dog"]


@pytest.mark.parametrize("where", [".", ".."])
@pytest.mark.parametrize("first", ["", "background\n", "__background__\r\n"])
def test_classes_txt_decides(folder, where, first):
    text = f"# ours\n{first}\n dog \ncat\r\n\nblack cat\n"
    (folder / where / "classes.txt").write_bytes(text.encode())
    assert find_classes(folder) == ["dog", "cat", "black cat"]


def test_the_folders_own_classes_txt_wins(folder):
    (folder / "classes.txt").write_text("dog")
    (folder.parent / "classes.txt").write_text("cat")
    assert find_classes(folder) == ["dog"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "background\n", "cat\ndog\ncat\n"])
def test_a_useless_classes_txt_is_refused(folder, text):
    (folder / "classes.txt").write_text(text)
    with pytest.raises(IONError, match=r"classes\.txt"):
        find_classes(folder)


def test_a_folder_without_any_object_has_no_classes(tmp_path):
    with pytest.raises(IONError, match=r"classes\.txt"):
        find_classes(write_voc(tmp_path / "x", {"a": []}))


@pytest.mark.skipif(not BCCD.is_dir(), reason="the BCCD data is not there")
def test_bccd_loses_only_its_two_boxes_without_extent(caplog):
    classes = find_classes(BCCD)
    assert classes == ["Platelets", "RBC", "WBC"]
    dicts = load_voc_layout(BCCD, "trainval", classes) + load_voc_layout(BCCD, "test", classes)
    assert len(dicts) == 364
    assert sum(len(record["annotations"]) for record in dicts) == 4888 - 2
    assert "BloodImage_00338.xml" in caplog.text


@pytest.mark.skipif(not COCO_VOC20.is_dir(), reason="the coco_voc20 data is not there")
def test_coco_voc20_matches_its_readme_and_detectron2s_own_loader():
    from detectron2.data.datasets.pascal_voc import load_voc_instances

    classes = find_classes(COCO_VOC20)
    assert classes == list(CLASS_NAMES)
    dicts = [r for s in ("trainval", "test") for r in load_voc_layout(COCO_VOC20, s, classes)]
    annotations = [a for record in dicts for a in record["annotations"]]
    assert (len(dicts), len(annotations)) == (101, 619)
    assert sum(a["difficult"] for a in annotations) == 11
    assert sum("sem_seg_file_name" in record for record in dicts) == 101

    theirs = load_voc_instances(str(COCO_VOC20), "test", CLASS_NAMES)
    ours = dicts[71:]
    for mine, other in zip(ours, theirs):
        for key in ("file_name", "image_id", "height", "width"):
            assert mine[key] == other[key]
        pairs = [[(a["bbox"], a["category_id"]) for a in r["annotations"]] for r in (mine, other)]
        assert pairs[0] == pairs[1]
