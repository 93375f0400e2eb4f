"""tools/torture.py, torture_disks.py, soak.py and fuzz.py refuse what they cannot do."""

import pytest
from cli_helpers import load_tool, run_tool, says


@pytest.mark.parametrize(
    ("tool", "option", "values"),
    [
        ("torture", "--kills", ["0", "-1", "few"]),
        ("torture", "--processes", ["0"]),
        ("torture", "--workers", ["-1"]),
        ("torture_disks", "--disks", ["-1"]),
        ("soak", "--minutes", ["nan", "-1", "0", "long"]),
        ("fuzz voc", "--minutes", ["nan", "-1", "0", "long"]),
    ],
)
def test_times_and_counts_that_make_no_sense(capfd, tool, option, values):
    name, *words = tool.split()
    for value in values:
        status, out, err = run_tool(load_tool(name), capfd, *words, option, value)
        assert (status, out) == (2, "")
        assert f"error: argument {option}: " in err and value in err.splitlines()[-1]


def test_a_folder_that_cannot_be_made(capfd, tmp_path):
    (tmp_path / "file").touch()
    told = run_tool(load_tool("torture"), capfd, "--folder", tmp_path / "file/new")
    assert says(told, "file/new cannot be made", "choose another --folder")
