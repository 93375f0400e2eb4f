"""Ultralytics' layout: its forms of data.yaml and of labels, and what is refused."""

import os
import unicodedata

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from model_helpers import small_config
from refusals import refused
from voc_folder import write_image

from ion_d2.data.catalog import ensure_registered, evaluator_type
from ion_d2.data.run_images import train_dicts

pytestmark = pytest.mark.usefixtures("catalogs")

BOX = "1 0.5 0.5 0.2 0.4"  # of a picture of 40 x 30 pixels


@pytest.fixture
def folder(tmp_path):
    for split, name in (("train", "a"), ("train", "sub/b"), ("val", "c")):
        path = tmp_path / "images" / split / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, (40, 30))
    write_labels(tmp_path, f"{BOX}\n\n0 0.95 0.1 0.2 0.2\n{BOX}\n")
    write_yaml(tmp_path)
    return tmp_path


def write_labels(folder, text, name="train/a"):
    path = folder / "labels" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_yaml(folder, text="names: [cat, dog]\ntrain: images/train\nval: images/val\n"):
    (folder / "data.yaml").write_text(text)


def load(folder, split="train"):
    name = f"yolo:{folder}/data.yaml:{split}"
    ensure_registered([name])
    return name, DatasetCatalog.get(name)


def test_boxes(folder):
    name, (first, second) = load(folder)
    assert MetadataCatalog.get(name).thing_classes == ["cat", "dog"]
    assert first["file_name"] == str(folder / "images/train/a.jpg")
    assert (first["height"], first["width"], first["image_id"]) == (30, 40, "images/train/a.jpg")
    # The second box ends 2 pixels beyond the picture; a repeated line counts once.
    boxes = [(o["category_id"], pytest.approx(o["bbox"])) for o in first["annotations"]]
    assert boxes == [(1, [16, 9, 24, 21]), (0, [34, 0, 40, 6])]
    assert second["annotations"] == []  # without a file of labels
    assert evaluator_type(name) == "pascal_voc"


def test_outlines_give_masks_to_the_boxes_beside_them(folder):
    write_labels(folder, f"0 0.25 0.2 0.5 0.2 0.5 0.6\n{BOX}\n")
    name, (first, _) = load(folder)
    outline, box = first["annotations"]
    assert outline["bbox"] == pytest.approx([10, 6, 20, 18])
    assert outline["segmentation"] == [pytest.approx([10, 6, 20, 6, 20, 18])]
    assert box["segmentation"] == [pytest.approx([16, 9, 24, 9, 24, 21, 16, 21])]
    assert evaluator_type(name) == "coco"


@pytest.mark.parametrize(
    "text",
    [
        "path: .\nnames: {0: cat, 1: dog}\ntrain: [images/train]\n",
        "names: [cat, dog]\nnc: 2\ntrain: ../images/train\n",  # Roboflow's
        "path: ./\ntrain: list.txt\nnames:\n  0: cat\n  1: dog\n",  # CVAT's
        "train: images/train\nnames: [cat, dog]\n",  # written for Label Studio's
    ],
)
def test_forms_of_the_data_file(folder, text):
    (folder / "list.txt").write_text("./images/train/a.jpg\ndata/images/train/sub/b.jpg\n")
    write_yaml(folder, text)
    name, records = load(folder)
    assert MetadataCatalog.get(name).thing_classes == ["cat", "dog"]
    assert [len(record["annotations"]) for record in records] == [2, 0]


def test_pictures_of_one_stem_all_count(folder):
    write_image(folder / "images/train/a.png", (40, 30))
    records = load(folder)[1]
    names = [record["file_name"].rpartition("/")[2] for record in records]
    assert names == ["a.jpg", "a.png", "b.jpg"]
    assert [len(record["annotations"]) for record in records] == [2, 2, 0]


def test_names_as_windows_and_other_systems_write_them(folder):
    picture = folder / "images/train" / unicodedata.normalize("NFD", "Käfer.jpg")
    write_image(picture, (40, 30))
    (folder / "list.txt").write_text(".\\images\\train\\a.jpg\nimages/train/Käfer.jpg\n")
    splits = "train: list.txt\nval: ..\\images\\val\ntest: images\\val"
    write_yaml(folder, f"names: [cat, dog]\n{splits}")
    write_labels(folder, BOX, "train/Käfer")
    records = load(folder)[1]
    assert [len(record["annotations"]) for record in records] == [2, 1]
    files = [record["file_name"] for record in records]
    assert files == [str(folder / "images/train/a.jpg"), str(picture)]
    for split in ("val", "test"):
        assert load(folder, split)[1][0]["file_name"] == str(folder / "images/val/c.jpg")


def test_a_split_without_labels_is_not_labeled(folder, caplog):
    (record,) = load(folder, "val")[1]
    assert "annotations" not in record
    assert "None of 1 pictures has labels" in caplog.text


WRONG_LABELS = {
    "1 0.5 0.5 0.2": "line 1 has 3 numbers after the class; a box has 4",
    "1 0.1 0.1 0.2 0.2 0.3": "line 1 has 5 numbers",
    f"{BOX}\n2 0.5 0.5 0.2 0.4": "line 2 has the class 2, but 'names' has those from 0 to 1",
    "0.5 0.5 0.5 0.2 0.4": "has the class 0.5",
    "1 24 15 8 12": "has 24; places and sizes are shares",
    "1 nan 0.5 0.2 0.4": "has nan; places",
    "dog 0.5 0.5 0.2 0.4": "must be the number of a class and then numbers",
    "1,0.5,0.5,0.2,0.4": "must be the number of a class and then numbers",
}


@pytest.mark.parametrize("text", WRONG_LABELS)
def test_wrong_labels_are_told_by_file_and_line(folder, text):
    write_labels(folder, text)
    with refused("labels/train/a.txt", WRONG_LABELS[text]):
        load(folder)


WRONG_FILES = {
    "train: images/train": "has no 'names'",
    "- a": "has no 'names'",
    "names: [a": "cannot be read as YAML",
    "names: !!python/object/apply:os.system [id]": "asks for more than plain values",
    "names: {0: cat, 2: dog}\ntrain: images/train": "without a gap",
    "names: [cat, no]\ntrain: images/train": "YAML reads as no text, such as no, in quotes",
    "names: [cat, cat]\ntrain: images/train": "names cat more than once",
    "names: [cat, dog]\nval: images/val": "has no split 'train'; it has val",
    "names: [cat, dog]\n1: images/val": "has no split 'train'; it has 1",
    "names: [cat, dog]\ntrain: pictures": "names pictures, but",
    "names: [cat, dog]\ntrain: /dev/zero": "/dev/zero is no folder or file",
    "names: [cat, dog]\ntrain: {a: b}": "must be a folder, a text file or a list",
    "names: [cat, dog]\ntrain: labels": "there is no picture in 'train'",
    "names: [cat]\nkpt_shape: [17, 3]\ntrain: images/train": "has keypoints",
}


@pytest.mark.parametrize("text", WRONG_FILES)
def test_wrong_data_files_are_told(folder, text):
    write_yaml(folder, text)
    with refused("data.yaml", WRONG_FILES[text]):
        load(folder)


def test_wrong_names_and_pictures(folder):
    for name in ("yolo:data.yaml", "yolo:"):
        with refused(name, "is not of the form yolo:DATA.YAML:SPLIT"):
            ensure_registered([name])
    with refused("absent.yaml", "does not exist"):
        ensure_registered([f"yolo:{folder}/absent.yaml:train"])
    (folder / "images/train/a.jpg").write_bytes(b"no picture")
    with refused("a.jpg", "cannot be decoded (it is in no known format"):
        load(folder)


def test_a_picture_that_is_listed_twice_is_told(folder):
    (folder / "list.txt").write_text("images/train/a.jpg\nimages/val/c.jpg\nimages/train/a.jpg\n")
    write_yaml(folder, "names: [cat, dog]\ntrain: list.txt\n")
    with refused("data.yaml", "names", "images/train/a.jpg 2 times"):
        load(folder)


def test_a_folder_above_is_that_of_the_file_a_link_leads_to(folder, tmp_path):
    (folder / "cfg").mkdir()
    (folder / "cfg" / "data.yaml").write_text("path: ..\nnames: [cat, dog]\ntrain: images/train\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link").symlink_to(folder / "cfg")
    _, records = load(tmp_path / "elsewhere" / "link")
    assert [os.path.isfile(record["file_name"]) for record in records] == [True, True]


def test_a_broken_picture_may_be_left_out(folder, caplog):
    """Though nothing but the picture tells its size."""
    (folder / "images/train/a.jpg").write_bytes(b"no picture")
    name = f"yolo:{folder}/data.yaml:train"
    ensure_registered([name])
    skipping = ("DATASETS.TRAIN", f"('{name}',)", "DATALOADER.FILTER_EMPTY_ANNOTATIONS", False)
    for opts in (skipping, (*skipping, "INPUT.SKIP_UNREADABLE", True), skipping):
        cfg = small_config(*opts)
        if cfg.INPUT.SKIP_UNREADABLE:
            (record,) = train_dicts(cfg)
            assert record["image_id"] == "images/train/sub/b.jpg"
        else:
            with refused("a.jpg cannot be decoded", "or leave out such pictures with INPUT.SKIP"):
                train_dicts(cfg)
    assert caplog.text.count("Skipped: ") == 1 and "a.jpg" in caplog.text
