"""The command that writes synthetic scenes."""

import pytest
from cli_helpers import load_tool


@pytest.fixture(scope="module")
def main():
    return load_tool("make_scenes").main


def test_writes_a_set_and_finds_it_again(main, tmp_path, capsys):
    command = [str(tmp_path / "set"), "--train", "3", "--test", "2", "--families", "outside"]
    assert main(command) == 0
    assert "Wrote 3 + 2 scenes" in capsys.readouterr().out
    assert (tmp_path / "set/classes.txt").read_text().split() == ["lamp_day", "lamp_night"]
    assert len(list((tmp_path / "set/JPEGImages").iterdir())) == 5
    before = (tmp_path / "set/scenes.json").stat().st_mtime_ns
    assert main(command) == 0
    assert "Already there: 3 + 2 scenes" in capsys.readouterr().out
    assert (tmp_path / "set/scenes.json").stat().st_mtime_ns == before


def test_passes_every_option_on(main, tmp_path):
    base = [str(tmp_path / "a"), "--train", "2", "--test", "0", "--families", "outside"]
    assert main(base) == 0
    plain = (tmp_path / "a/JPEGImages/trainval_000001.jpg").read_bytes()
    for option in (["--seed", "5"], ["--cue", "balanced"], ["--distance", "30"], ["--size", "272"]):
        assert main([str(tmp_path / "b"), *base[1:], *option]) == 0
        assert (tmp_path / "b/JPEGImages/trainval_000001.jpg").read_bytes() != plain


def test_bad_input_is_one_sentence_and_status_1(main, tmp_path, capsys):
    (tmp_path / "letter.txt").write_text("mine")
    assert main([str(tmp_path), "--train", "1", "--test", "1"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and str(tmp_path) in error
    assert main([str(tmp_path / "x"), "--families", "insane"]) == 1
    assert "insane" in capsys.readouterr().err
