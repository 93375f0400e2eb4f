"""Planted faults: each is found, by its own rule alone, and a sound dataset has none."""

import re
from itertools import count

import numpy as np
import pytest
from cli_helpers import load_tool, run_tool, says
from dataset_checks import SIZE, check, write_coco
from detectron2.data import DatasetCatalog
from page_checks import check_page
from PIL import Image
from voc_folder import BCCD, annotation_xml, object_xml, write_image, write_label, write_split

from ion_d2.data.readable import EXIF_ORIENTATION

CLASSES = ["cat", "dog", "cow", "bird"]
# The anchors of configs/ion_tiny.yaml have 24 pixels here, not 30: pictures are enlarged to 240.
FITS, LESS = (10, 10, 33, 33), (10, 10, 39, 39)
CAT = object_xml("cat", FITS)
DIFFICULT = object_xml("cat", (40, 10, 63, 33), "<difficult>1</difficult>")


class Folder:
    """A folder in VOC layout, whose pictures all differ."""

    _seeds = count()

    def __init__(self, root):
        self.root, self.ids = root, {"train": [], "test": []}
        for folder in ("Annotations", "ImageSets/Main", "JPEGImages", "SegmentationClass"):
            (root / folder).mkdir(parents=True)
        (root / "classes.txt").write_text("\n".join(CLASSES))

    def picture(self, size=SIZE):
        """Soft spots, as a photograph has them."""
        spots = np.random.default_rng(next(self._seeds)).integers(0, 256, (6, 8, 3), np.uint8)
        return Image.fromarray(spots).resize(size, Image.Resampling.BICUBIC)

    def add(self, name, *objects, split="train", picture=None, size=SIZE, label=None, **options):
        """A picture, its labels and its line in the split; the picture's path."""
        self.ids[split].append(name)
        if label is not None:
            write_label(self.root / f"SegmentationClass/{name}.png", label)
        xml = annotation_xml(objects or (CAT,), size)
        (self.root / f"Annotations/{name}.xml").write_text(xml)
        path = self.root / f"JPEGImages/{name}.jpg"
        (self.picture() if picture is None else picture).save(path, **options)
        return path

    def names(self):
        """The datasets, once all is there."""
        for split, ids in self.ids.items():
            write_split(self.root, split, "\n".join(ids))
        return [f"voc:{self.root}:{split}" for split in self.ids]


def plant(folder):
    """One fault of each kind; the names of pictures tell the rule."""
    add = folder.add
    add("sound", label=np.full((72, 96), 255))
    add("unusable", object_xml("cat", ("NaN", 1, 20, 20)), CAT)
    add("unknown", CAT, object_xml("zebra", FITS))
    add("unlabeled")
    (folder.root / "Annotations/unlabeled.xml").unlink()
    folder.ids["train"] += ["gone", "sound"]
    add("cow", object_xml("cow", FITS), object_xml("dog", (40, 10, 63, 33)))
    add("none")
    (folder.root / "Annotations/none.xml").write_text(annotation_xml((), SIZE))
    add("inverted", CAT, object_xml("cat", (60, 40, 50, 60)))
    add("empty", CAT, object_xml("cat", (60, 40, 60, 40)))
    add("outside", CAT, object_xml("cat", (80, 10, 103, 33)))
    add("tiny", CAT, object_xml("cat", (50, 10, 51, 33)))
    add("repeated", CAT, object_xml("dog", FITS), CAT)
    add("hard", CAT, DIFFICULT)
    add("long", CAT, object_xml("cat", (3, 50, 94, 54)))
    cut = add("cut")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 3 // 4])
    deep = Image.fromarray(np.full(SIZE[::-1], 1000, np.uint16))
    add("deep", picture=deep, format="PNG")
    add("gray", picture=folder.picture().convert("L"))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    add("turned", picture=folder.picture(SIZE[::-1]), exif=exif)
    add("other_size", size=(96, 71))
    same = add("same")
    add("same_again").write_bytes(same.read_bytes())
    add("same_once_more").write_bytes(same.read_bytes())
    alike = add("alike")
    add("scaled", picture=Image.open(alike).resize((192, 144)), size=(192, 144), quality=60)
    add("rgb_map", label=np.zeros((72, 96)))
    Image.new("RGB", SIZE).save(folder.root / "SegmentationClass/rgb_map.png")
    add("id_map", label=np.full((72, 96), 5))
    add("small_map", label=np.ones((36, 48)))
    objects = object_xml("cat", LESS), object_xml("dog", LESS)
    leaked = add("leaked", *objects, split="test")
    leaked.write_bytes(add("trained").read_bytes())
    compressed = Image.open(add("trained_alike"))
    add("tested_alike", *objects, split="test", picture=compressed, quality=50)


# By rule: what the places of its findings say, one each; nothing else may be found.
PLANTED = {
    "unusable-dataset": ["There is no split file"],
    "unusable-label": ["unusable.xml: <xmin> is 'NaN'"],
    "unknown-class": ["unknown.xml has an object of class 'zebra'"],
    "missing-label": ["unlabeled.jpg"],
    "unlabeled": ["1 pictures, the first "],
    "missing-picture": ["has no picture gone"],
    "listed-twice": ["names image 'sound' more than once"],
    "different-classes": ["but bird, cow, dog, cat"],
    "unused-class": ["bird"],
    "one-split-class": ["cow has no object"],
    "no-boxes": ["none.jpg"],
    "nothing-learned": ["1 of 1 objects (0 crowds, 1 difficult), the first in "],
    "not-learned": ["1 of 35 objects (0 crowds, 1 difficult), the first in "],
    "box-inverted": ["inverted.jpg: cat at (59, 39, 50, 60)"],
    "box-empty": ["empty.jpg: cat at (59, 39, 60, 40)"],
    "box-outside": ["outside.jpg: cat at (79, 9, 103, 33)"],
    "box-tiny": ["tiny.jpg: cat at (49, 9, 51, 33)"],
    "box-repeated": ["repeated.jpg: cat at (9, 9, 33, 33)"],
    "no-anchor": ["tiny.jpg: cat at (49", "long.jpg: cat at (2, 49, 94, 54)"],
    "weak-anchor": ["4 of 4 objects"],
    "broken-picture": ["cut.jpg cannot be decoded"],
    "deep-picture": ["deep.jpg"],
    "gray-picture": ["gray.jpg"],
    "turned-picture": ["turned.jpg (orientation 6)"],
    "size-differs": ["other_size.jpg: 96x71 in the labels, 96x72 in the picture"],
    "same-picture": ["same_again.jpg and ", "same_once_more.jpg and "],
    "leak": ["leaked.jpg and "],
    "similar-picture": ["scaled.jpg and "],
    "similar-leak": ["tested_alike.jpg and "],
    "label-map-broken": ["rgb_map.png has pixel mode RGB"],
    "label-map-ids": ["id_map.png holds the id(s) 5"],
    "label-map-size": ["small_map.png: 48x36, its picture 96x72"],
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """What is found in three datasets full of faults, and their folder with found.html."""
    root = tmp_path_factory.mktemp("planted")
    folder, other = Folder(root / "VOC2007"), Folder(root / "other")
    plant(folder)
    other.add("a", *(object_xml(name, FITS) for name in ("cat", "dog", "cow")))
    (other.root / "classes.txt").write_text("\n".join(reversed(CLASSES)))
    hard = Folder(root / "hard")
    hard.add("b", DIFFICULT)
    bare = Folder(root / "bare")
    bare.add("c")
    (bare.root / "Annotations/c.xml").unlink()
    first = [each.names()[0] for each in (other, hard, bare)]
    names = [*folder.names(), *first, f"voc:{folder.root}:gone"]
    options = ["--hash", "--html", root / "found.html", "--config-file", "configs/ion_tiny.yaml"]
    return *check(root, *names, *options), root


@pytest.mark.parametrize("rule", PLANTED)
def test_each_planted_fault_is_found_by_its_own_rule(planted, rule):
    found = planted[2].get(rule, [])
    assert len(found) == len(PLANTED[rule]), found
    for place, words in zip(found, PLANTED[rule]):
        assert words in place


def test_every_rule_has_a_planted_fault_and_advice(planted):
    rules = load_tool("dataset_rules").RULES
    assert set(PLANTED) == set(rules) == set(planted[2])
    assert all(rule.advice.endswith(".") and rule.weight for rule in rules.values())


def test_the_summary_names_all_and_the_exit_status_is_one(planted):
    code, output, places, _ = planted
    assert code == 1
    for rule, found in places.items():
        assert f": {rule}, 1 in " in output or len(found) > 1
    assert "Use" in output and output.splitlines()[-2].startswith("15 errors, 13 warnings, 6 notes")


def test_the_page_shows_the_faulty_pictures(planted):
    page = check_page((planted[3] / "found.html").read_text())
    shown = {picture["alt"].partition(":")[0].rpartition("/")[2] for picture in page.pictures()}
    assert {"outside.jpg", "inverted.jpg", "gray.jpg", "other_size.jpg"} <= shown
    assert not {"cut.jpg", "deep.jpg"} & shown
    assert "cut.jpg" in " ".join(data for _, data in page.texts)


def sound(root):
    folder = Folder(root / "VOC2007")
    for split in ("train", "test"):
        animals = [object_xml(name, (x, 10, x + 23, 33)) for x, name in enumerate(CLASSES, 5)]
        folder.add(f"sound_{split}", *animals, split=split, label=np.ones((72, 96)))
    return folder


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF"])
def test_nothing_is_found_in_sound_pictures_and_truncated_ones_are(tmp_path, form):
    folder = sound(tmp_path)
    path = folder.add("more", picture=folder.picture(), format=form)
    names = folder.names()
    code, output, places = check(tmp_path, *names)
    assert (code, places) == (0, {}) and "0 errors, 0 warnings, 0 notes" in output
    path.write_bytes(path.read_bytes()[:-200])
    code, _, places = check(tmp_path, *names)
    assert code == 1 and list(places) == ["broken-picture"]


def test_pictures_with_something_after_their_end_are_whole(tmp_path):
    folder = sound(tmp_path)
    with folder.add("phone").open("ab") as file:
        file.write(bytes(1000))
    assert check(tmp_path, *folder.names())[2] == {}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_turned_pictures_have_the_size_that_a_training_sees(tmp_path, form, orientation):
    folder = sound(tmp_path)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    size = SIZE[::-1] if orientation in (6, 8) else SIZE
    folder.add("turned", picture=folder.picture(size), exif=exif, format=form)
    places = check(tmp_path, *folder.names())[2]
    assert list(places) == (["turned-picture"] if orientation > 1 else [])


def test_the_better_anchors_are_named_with_what_they_bring(tmp_path):
    folder = sound(tmp_path)
    names, config = folder.names(), ["--config-file", "configs/ion_tiny.yaml"]
    far = ["MODEL.ANCHOR_GENERATOR.SIZES", "[[4], [6]]"]
    _, output, places = check(tmp_path, *names, *config, *far)
    assert len(places["no-anchor"]) == 8 and "100.0% none with 0.3 or more" in output
    better = re.search(r'Better: .*SIZES "(.*?)" .*ASPECT_RATIOS "(.*?)"', output)
    set_to = "MODEL.ANCHOR_GENERATOR.SIZES", "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"
    opts = [text for pair in zip(set_to, better.groups()) for text in pair]
    assert "no-anchor" not in check(tmp_path, *names, *config, *opts)[2]


@pytest.mark.skipif(not BCCD.exists(), reason="needs ../shared/data/bccd")
def test_blood_cells_have_no_error(tmp_path):
    names = [f"voc:{BCCD}:{split}" for split in ("trainval", "test")]
    code, _, places = check(tmp_path, *names, "--config-file", "configs/ion_tiny.yaml")
    # Two points without extent, which the data's README knows of.
    assert code == 0 and list(places) == ["box-empty"] and len(places["box-empty"]) == 2


def test_bad_arguments_are_told(tmp_path, capfd):
    tool, name = load_tool("check_dataset"), sound(tmp_path).names()[0]
    assert says(run_tool(tool, capfd, name, "SEED", 1), "--config-file FILE")
    assert says(run_tool(tool, capfd, name, name), "named more than once")


def test_pictures_that_are_missing_or_no_files_are_found(tmp_path):
    write_image(tmp_path / "a.png", SIZE)
    (tmp_path / "b.png").mkdir()
    code, _, places = check(tmp_path, write_coco(tmp_path, {}, {"category_id": 2}, {}))
    assert code == 1 and set(places) == {"broken-picture", "missing-picture"}
    assert f"{tmp_path}/b.png cannot be decoded" in places["broken-picture"][0]
    assert f"{tmp_path}/c.png does not exist" in places["missing-picture"][0]


def test_a_function_without_class_names_is_told_and_checked(tmp_path, catalogs):
    picture = str(write_image(tmp_path / "a.png", SIZE))
    box = {"bbox": [1, 1, 2.5, 40], "bbox_mode": 0, "category_id": 2}
    DatasetCatalog.register("mine", lambda: [{"file_name": picture, "annotations": [box]}])
    code, _, places = check(tmp_path, "mine")
    assert code == 1 and "names no classes" in places["unusable-dataset"][0]
    assert places["box-tiny"] == [f"{picture}: class 2 at (1, 1, 2.5, 40)"]
