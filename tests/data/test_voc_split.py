"""Lists of images as VOC and other programs write them."""

import pytest
from refusals import refused
from voc_folder import object_xml, write_split, write_voc

from ion_d2.data.voc_layout import load_voc_layout

CAT = object_xml("cat", (5, 6, 15, 16))


def load(root, split="odd"):
    return [record["image_id"] for record in load_voc_layout(root, split, ["cat"])]


@pytest.fixture
def folder(tmp_path):
    return write_voc(tmp_path / "VOC", {"im0": [CAT], "my im.1": []})


@pytest.mark.parametrize(
    "line",
    [
        "im0", "im0.jpg", "im0.PNG", "im0.xml", "im0.jpg 1", "im0 -1", "im0  1", "im0\t0",
        "JPEGImages/im0.jpg", "./JPEGImages/im0.jpg", "JPEGImages\\im0.jpg", "Annotations/im0.xml",
        "C:\\data\\VOC\\JPEGImages\\im0.jpg", "/some where/VOC/JPEGImages/im0.jpg",
        "./VOC/JPEGImages/im0.jpg ./VOC/Annotations/im0.xml", "data/train/im0",
        "\ufeffim0  \r", "\n\n  im0 \n\n",
    ],
)  # fmt: skip
def test_lines_that_name_files(folder, line):
    write_split(folder, "odd", f"{line}\nmy im.1\n")
    assert load(folder) == ["im0", "my im.1"]


def test_ids_with_spaces_that_look_like_flags(tmp_path):
    write_voc(tmp_path, {"my cat 1": [CAT], "my cat": []})
    assert load(tmp_path, "train") == ["my cat 1", "my cat"]
    write_split(tmp_path, "odd", "my cat 1 -1\r\nmy cat 0")
    assert load(tmp_path) == ["my cat 1", "my cat"]


def test_comments_do_not_count_but_ids_may_look_like_one(tmp_path):
    root = write_voc(tmp_path, {"#1": [CAT], "a": []})
    write_split(root, "odd", "# made by hand\n#1\na\n")
    assert load(root) == ["#1", "a"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("im0.jpg\nim7.jpg\n", ("im7.jpg", "'odd'", "image ID", "extension")),
        ("my\n", ("no picture my (", "'odd'")),  # not "my im.1", whose first word it is
        ("my im.1 extra\n", ("my im.1 extra",)),
        ("photo 1\n", ("'odd'", "photo 1 (")),
        ("im0,cat\n", ("im0,cat", "image ID")),
        ("im0\nmy im.1\nim0\n", ("'odd'", "'im0'", "more than once")),
        ("im0\nim0 1\n", ("'odd'", "'im0'", "more than once")),
        ("im0\nJPEGImages/im0.jpg\n", ("'im0'", "more than once")),
        ("# nothing\n", ("'odd'", "holds comments only")),
        ("", ("odd.txt", "no image")),
        ("\n \r\n", ("odd.txt", "no image")),
        (b"\xff\xfe\xfa", ("odd.txt", "cannot be read as UTF-8")),
    ],
)
def test_other_lists_are_refused(folder, text, words):
    (folder / "ImageSets" / "Main" / "odd.txt").write_bytes(
        text if isinstance(text, bytes) else text.encode()
    )
    with refused(*words):
        load(folder)


def test_a_missing_list_names_those_there_are(folder):
    write_split(folder, "val", "im0\n")
    with refused("trainval.txt", "train, val"):
        load(folder, "trainval")
    for path in (folder / "ImageSets" / "Main").iterdir():
        path.unlink()
    with refused("train.txt", "none"):
        load(folder, "train")


def into_subfolders(root, moves):
    """Move files: path -> new path."""
    for source, target in moves.items():
        (root / target).parent.mkdir(exist_ok=True)
        (root / source).rename(root / target)


@pytest.mark.parametrize("xml_too", [True, False])
def test_pictures_in_subfolders(tmp_path, xml_too):
    root = write_voc(tmp_path, {"im0": [CAT], "im1": [CAT, CAT]})
    moves = {"JPEGImages/im0.jpg": "JPEGImages/a/im0.jpg"}
    moves["JPEGImages/im1.jpg"] = "JPEGImages/b/im1.jpg"
    if xml_too:
        moves["Annotations/im0.xml"] = "Annotations/a/im0.xml"
        moves["Annotations/im1.xml"] = "Annotations/b/im1.xml"
    into_subfolders(root, moves)
    write_split(root, "odd", "a/im0\nJPEGImages/b/im1.jpg\n")
    dicts = load_voc_layout(root, "odd", ["cat"])
    assert [record["image_id"] for record in dicts] == ["a/im0", "b/im1"]
    assert [len(record["annotations"]) for record in dicts] == [1, 2]
    assert dicts[1]["file_name"] == str(root / "JPEGImages" / "b" / "im1.jpg")
    with refused("there is a/im0, in a subfolder"):
        load(root, "train")


def test_one_annotation_never_serves_two_pictures(tmp_path):
    root = write_voc(tmp_path, {"im0": [CAT], "im1": [CAT]})
    moves = {"JPEGImages/im0.jpg": "JPEGImages/a/im0.jpg"}
    moves["JPEGImages/im1.jpg"] = "JPEGImages/b/im0.jpg"
    moves["Annotations/im1.xml"] = "Annotations/b/im0.xml"
    into_subfolders(root, moves)
    write_split(root, "odd", "a/im0\nb/im0\n")
    with refused("1 of the 2 images", "im0.xml"):
        load(root)
