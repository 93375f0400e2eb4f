"""Lists of images as other programs write them: understood, or told what is wanted."""

import pytest
from voc_folder import object_xml, write_split, write_voc

from ion_d2.data.voc_layout import load_voc_layout
from ion_d2.errors import IONError

CAT = object_xml("cat", (5, 6, 15, 16))


def load(root, split="odd"):
    return [record["image_id"] for record in load_voc_layout(root, split, ["cat"])]


@pytest.fixture
def folder(tmp_path):
    return write_voc(tmp_path / "VOC", {"im0": [CAT], "my im.1": []})


@pytest.mark.parametrize(
    "line",
    [
        "im0.jpg",
        "im0.PNG",
        "im0.xml",
        "JPEGImages/im0.jpg",
        "./JPEGImages/im0.jpg",
        "JPEGImages\\im0.jpg",
        "C:\\data\\VOC\\JPEGImages\\im0.jpg",
        "/some where/VOC/JPEGImages/im0.jpg",
        "./VOC/JPEGImages/im0.jpg ./VOC/Annotations/im0.xml",
        "Annotations/im0.xml",
        "data/train/im0",
        "im0.jpg 1",
        "im0 -1",
        "\ufeffim0  \r",
    ],
)
def test_lines_that_name_files(folder, line):
    write_split(folder, "odd", f"{line}\nmy im.1\n")
    assert load(folder) == ["im0", "my im.1"]


def test_comments_do_not_count_but_ids_may_look_like_one(tmp_path):
    root = write_voc(tmp_path, {"#1": [CAT], "a": []})
    write_split(root, "odd", "# made by hand\n#1\na\n")
    assert load(root) == ["#1", "a"]
    write_split(root, "odd", "# nothing\n")
    with pytest.raises(IONError, match="'odd'.*comments only"):
        load(root)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("im0.jpg\nim7.jpg\n", ("im7.jpg", "'odd'", "image ID", "extension")),
        ("my\n", ("no picture my (", "'odd'")),  # not "my im.1", whose first word it is
        ("my im.1 extra\n", ("my im.1 extra",)),
        ("im0\nJPEGImages/im0.jpg\n", ("'im0'", "more than once")),
        ("im0,cat\n", ("im0,cat", "image ID")),
    ],
)
def test_other_lines_are_told(folder, text, words):
    write_split(folder, "odd", text)
    with pytest.raises(IONError) as caught:
        load(folder)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


def into_subfolders(root, **places):
    """Move files: folder -> {name: subfolder}."""
    for folder, moves in places.items():
        for name, subfolder in moves.items():
            (root / folder / subfolder).mkdir(exist_ok=True)
            (root / folder / name).rename(root / folder / subfolder / name)


@pytest.mark.parametrize("xml_too", [True, False])
def test_pictures_in_subfolders(tmp_path, xml_too):
    root = write_voc(tmp_path, {"im0": [CAT], "im1": [CAT, CAT]})
    into_subfolders(root, JPEGImages={"im0.jpg": "a", "im1.jpg": "b"})
    if xml_too:
        into_subfolders(root, Annotations={"im0.xml": "a", "im1.xml": "b"})
    write_split(root, "odd", "a/im0\nJPEGImages/b/im1.jpg\n")
    dicts = load_voc_layout(root, "odd", ["cat"])
    assert [record["image_id"] for record in dicts] == ["a/im0", "b/im1"]
    assert [len(record["annotations"]) for record in dicts] == [1, 2]
    assert dicts[1]["file_name"] == str(root / "JPEGImages" / "b" / "im1.jpg")


def test_one_annotation_never_serves_two_pictures(tmp_path):
    root = write_voc(tmp_path, {"im0": [CAT], "im1": [CAT]})
    into_subfolders(root, JPEGImages={"im0.jpg": "a"})
    (root / "JPEGImages" / "b").mkdir()
    (root / "JPEGImages" / "im1.jpg").rename(root / "JPEGImages" / "b" / "im0.jpg")
    (root / "Annotations" / "b").mkdir()
    (root / "Annotations" / "im1.xml").rename(root / "Annotations" / "b" / "im0.xml")
    write_split(root, "odd", "a/im0\nb/im0\n")
    with pytest.raises(IONError, match="1 of the 2 images.*im0.xml"):
        load_voc_layout(root, "odd", ["cat"])


def test_an_id_that_lacks_its_subfolder_is_told_where_it_is(tmp_path):
    root = write_voc(tmp_path, {"im0": [CAT]})
    into_subfolders(root, JPEGImages={"im0.jpg": "a"})
    with pytest.raises(IONError, match="there is a/im0, in a subfolder"):
        load(root, "train")
