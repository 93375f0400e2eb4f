import contextlib
import logging

import numpy as np
import pytest
from detectron2.data.transforms import ResizeShortestEdge
from PIL import Image
from refusals import refused
from voc_folder import write_image

from ion_d2.data.readable import UnreadableImageError, check_headers, filter_unreadable, read_image


def truncated(path):
    write_image(path, size=(200, 150))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BREAK = {
    "truncated.jpg": truncated,
    "truncated.png": truncated,
    "empty.jpg": lambda path: path.write_bytes(b""),
    "text.jpg": lambda path: path.write_text("<html>404</html>"),
}


def test_a_deep_picture_is_told_once(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((3, 4), 1000, np.uint16)).save(path)
    with pytest.raises(UnreadableImageError) as caught:
        read_image(str(path), "RGB")
    assert str(caught.value).count(str(path)) == 1 and "cannot be decoded" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(BREAK))
def test_broken_pictures_are_named_without_advice_that_is_a_runs(tmp_path, name):
    BREAK[name](tmp_path / name)
    with refused(tmp_path / name, "replace it.") as caught:
        read_image(str(tmp_path / name), "BGR")
    assert isinstance(caught.value, UnreadableImageError)
    assert "SKIP_UNREADABLE" not in str(caught.value)


@pytest.mark.parametrize("name", ["empty.jpg", "text.jpg", "deep.jpg", "thin.jpg"])
def test_a_run_names_broken_pictures_with_the_way_out(tmp_path, name):
    kinds = {
        **BREAK,
        "deep.jpg": lambda path: Image.new("I;16", (9, 9)).save(path, "PNG"),
        "thin.jpg": lambda path: write_image(path, (4000, 1)),
    }
    kinds[name](tmp_path / name)
    record = {"file_name": str(tmp_path / name)}
    with refused(tmp_path / name, "INPUT.SKIP_UNREADABLE True.") as caught:
        check_headers([record], ResizeShortestEdge([600, 600], 1000), skip_unreadable=False)
    assert isinstance(caught.value, UnreadableImageError)
    check_headers([record], ResizeShortestEdge([600, 600], 1000), skip_unreadable=True)


def test_a_missing_picture_is_an_error_that_skipping_does_not_hide(tmp_path):
    with refused("none.jpg", "does not exist") as caught:
        filter_unreadable([{"file_name": str(tmp_path / "none.jpg")}])
    assert not isinstance(caught.value, UnreadableImageError)


def test_filter_names_what_it_leaves_out_and_keeps_the_order(tmp_path, caplog):
    names = ["a.jpg", "truncated.jpg", "b.jpg", "empty.jpg", "text.jpg", "c.png"]
    for name in names:
        BREAK.get(name, write_image)(tmp_path / name)
    dicts = [{"file_name": str(tmp_path / name), "image_id": name} for name in names]
    with caplog.at_level(logging.WARNING):
        kept = filter_unreadable(dicts)
    assert [record["image_id"] for record in kept] == ["a.jpg", "b.jpg", "c.png"]
    assert len(caplog.records) == 3
    assert all(name in caplog.text for name in ("truncated.jpg", "empty.jpg", "text.jpg"))


def test_filter_refuses_to_leave_nothing(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    with refused("empty.jpg"):
        filter_unreadable([{"file_name": str(tmp_path / "empty.jpg")}])
    assert filter_unreadable([]) == []


@pytest.mark.parametrize(
    ("size", "stated", "fault"),
    [
        ((60, 40), {}, None),
        ((60, 40), {"width": 61, "height": 40}, "is 60x40 pixels"),
        ((2000, 6), {}, None),
        ((4000, 1), {}, "too thin"),
        ((1, 4000), {}, "too thin"),
    ],
)
def test_headers_tell_what_would_stop_a_run(tmp_path, size, stated, fault):
    record = {"file_name": str(write_image(tmp_path / "a.png", size=size)), **stated}
    with refused("a.png", fault) if fault else contextlib.nullcontext():
        check_headers([record], ResizeShortestEdge([600, 600], 1000), skip_unreadable=False)


def test_a_deep_picture_is_skipped_without_advice_to_skip(tmp_path, caplog):
    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((30, 40), 1000, np.uint16)).save(deep)
    good = {"file_name": str(write_image(tmp_path / "a.png"))}
    dicts = [good, {"file_name": str(deep)}]
    check_headers(dicts, ResizeShortestEdge([60, 60], 100), skip_unreadable=True)
    with caplog.at_level(logging.WARNING):
        assert filter_unreadable(dicts) == [good]
    assert "Skipped: Image " + str(deep) in caplog.text
    assert "SKIP_UNREADABLE" not in caplog.text
