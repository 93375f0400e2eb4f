"""Folders are searched through links, and to an end; names in them stand for one picture."""

import pytest

from ion_d2.data.folders import find_files, own_names, pictures_called


@pytest.fixture
def folder(tmp_path):
    """Files in a folder, and in one that a link leads to."""
    for name in ("in/a.jpg", "in/deep/b.JPG", "in/.c.jpg", "in/.deep/d.jpg", "elsewhere/e.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (tmp_path / "in/link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    return tmp_path / "in"


def found(folder):
    return [path.removeprefix(f"{folder}/") for path in find_files(str(folder), (".jpg",))]


def test_links_to_folders_are_followed_and_what_is_hidden_left_out(folder):
    assert found(folder) == ["a.jpg", "deep/b.JPG", "link/e.jpg"]


@pytest.mark.parametrize("relative", [True, False])
def test_links_to_what_they_lie_in_are_not_followed(folder, monkeypatch, relative):
    (folder / "deep/self").symlink_to(folder, target_is_directory=True)
    (folder / "up").symlink_to("..", target_is_directory=True)
    (folder.parent / "elsewhere/back").symlink_to(folder / "deep", target_is_directory=True)
    if relative:
        monkeypatch.chdir(folder.parent)
        folder = "in"
    # The link back is no loop of its own: from "deep" on, nothing leads to it again.
    expected = ["a.jpg", "deep/b.JPG", "link/e.jpg", "link/back/b.JPG"]
    assert found(folder) == expected


@pytest.mark.parametrize(
    ("pictures", "names", "own"),
    [
        (["J/a/im0", "J/b/im0"], ["a/im0", "b/im0"], ["a/im0", "b/im0"]),
        (["J/a/im0", "J/b/im0"], ["im0"], [None, None]),
        (["J/a/im0", "J/b/im0"], ["a/im0", "im0"], ["a/im0", None]),
        (["J/a/im0", "J/b/im1"], ["im0", "b/im1", "im1"], ["im0", "b/im1"]),
        # One lies above the other: a folder that mirrors theirs has its name alone.
        (["J/im0", "J/a/im0"], ["im0"], ["im0", None]),
        (["J/a/im0", "J/im0"], ["im0", "a/im0"], ["a/im0", "im0"]),
        (["im0", "a/im0", "ab/im0"], ["im0"], ["im0", None, None]),
        # A name has whole parts of the path; two pictures may differ in their extension alone.
        (["J/ab/im0", "J/xim0"], ["b/im0", "im0"], ["im0", None]),
        (["J/im0", "J/im0"], ["im0"], [None, None]),
    ],
)
def test_a_name_stands_for_one_picture(pictures, names, own):
    found = own_names(pictures_called(names, pictures))
    assert [found.get(place) for place in range(len(pictures))] == own
