"""The command that writes synthetic scenes."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from cli_helpers import load_tool, run_tool, says

from ion_lab.scenes import generate_scenes
from ion_lab.scenes.voc_writer import write_scene


@pytest.fixture(scope="module")
def main():
    return load_tool("make_scenes").main


def test_writes_a_set_and_finds_it_again(main, tmp_path, capsys):
    command = [str(tmp_path / "set"), "--train", "3", "--test", "2", "--families", "outside"]
    main(command)
    assert "Wrote 3 + 2 scenes" in capsys.readouterr().out
    assert (tmp_path / "set/classes.txt").read_text().split() == ["lamp_day", "lamp_night"]
    assert len(list((tmp_path / "set/JPEGImages").iterdir())) == 5
    before = (tmp_path / "set/scenes.json").stat().st_mtime_ns
    main(command)
    assert "Already there: 3 + 2 scenes" in capsys.readouterr().out
    assert (tmp_path / "set/scenes.json").stat().st_mtime_ns == before


def test_passes_every_option_on(main, tmp_path):
    base = [str(tmp_path / "a"), "--train", "2", "--test", "0", "--families", "outside"]
    main(base)
    plain = (tmp_path / "a/JPEGImages/trainval_000001.jpg").read_bytes()
    for option in (["--seed", "5"], ["--cue", "balanced"], ["--distance", "30"], ["--size", "272"]):
        main([str(tmp_path / "b"), *base[1:], *option])
        assert (tmp_path / "b/JPEGImages/trainval_000001.jpg").read_bytes() != plain


def test_bad_input_is_one_sentence_and_status_1(tmp_path, capfd):
    tool = load_tool("make_scenes")
    (tmp_path / "letter.txt").write_text("mine")
    assert says(run_tool(tool, capfd, tmp_path, "--train", 1, "--test", 1), str(tmp_path))
    assert says(run_tool(tool, capfd, tmp_path / "x", "--families", "insane"), "insane")
    assert says(run_tool(tool, capfd, tmp_path / "x", "--size", 10**8), "give at most 8192")


def test_two_programs_that_write_the_same_scenes_wait_for_each_other(tmp_path, monkeypatch):
    begun, at_once = [], []

    def slow(*args):
        begun.append(args)
        at_once.append(len(begun))
        time.sleep(0.2)
        write_scene(*args)
        begun.pop()

    monkeypatch.setattr("ion_lab.scenes.scene_set.write_scene", slow)
    with ThreadPoolExecutor(2) as pool:
        made = list(
            pool.map(lambda _: generate_scenes(tmp_path / "s", num_train=2, num_test=1), "ab")
        )
    assert sorted(it.written for it in made) == [False, True] and set(at_once) == {1}
    assert len(list((tmp_path / "s/JPEGImages").iterdir())) == 3
