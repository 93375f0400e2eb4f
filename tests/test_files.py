"""Files written whole, also those of the longest names."""

from __future__ import annotations

import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ion_d2.errors import IONError
from ion_d2.files import distinct_file_names, fitting_name, replace_file, write_result


@pytest.mark.parametrize("name", ["a", "a" * 255, "猫" * 85, "\n" * 255], ids=ascii)
def test_a_file_of_the_longest_name_is_replaced(name, tmp_path):
    for content in (b"old", b"new"):
        replace_file(str(tmp_path / name), lambda file, content=content: file.write(content))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"new"


def test_a_result_makes_its_folder_or_says_why_it_cannot(tmp_path):
    write_result(str(tmp_path / "new" / "a"), lambda file: file.write(b"b"), "move it")
    below_a_file = str(tmp_path / "new" / "a" / "c")
    with pytest.raises(IONError, match=r"/new/a/c cannot be written \(.+\); move it\.$"):
        write_result(below_a_file, lambda file: file.write(b"d"), "move it")


def test_a_shorter_limit():
    names = [fitting_name("é" * 60 + end, most=100) for end in "xy"]
    assert len(set(names)) == 2 and all(len(os.fsencode(name)) in (99, 100) for name in names)


@pytest.mark.parametrize(
    ("names", "files"),
    [
        ("a b c", "a b c"),
        ("a a a", "a a_2 a_3"),
        ("a a a_2", "a a_2 a_2_2"),
        ("a a_2 a a", "a a_2 a_3 a_4"),
        ("x/y x:y", "x_y x_y_2"),
        (f".a ..b a.b {'x' * 9}.{'y' * 59}", f"_a _b a.b _{'y' * 59}"),
    ],
)
def test_names_of_files_are_distinct(names, files):
    assert distinct_file_names(names.split()) == files.split()


def test_many_alike_names_take_no_time():
    names = [f"{n}" for n in range(100_000)] + ["a"] * 20_000
    before = time.monotonic()
    assert len(set(distinct_file_names(names))) == len(names)
    assert time.monotonic() - before < 10


def test_a_link_is_replaced_and_a_device_takes_what_is_written(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"another's")
    link.symlink_to(target)
    replace_file(str(link), lambda file: file.write(b"new"))
    assert link.read_bytes() == b"new" and target.read_bytes() == b"another's"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    link.unlink()
    link.symlink_to(pipe)  # as /dev/stdout is one
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_bytes)
        replace_file(str(link), lambda file: file.write(b"through"))
        assert read.result() == b"through"
    assert stat.S_ISFIFO(pipe.stat().st_mode) and link.is_symlink()
