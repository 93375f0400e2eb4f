"""A program is given bad input, and what was there stays."""

from cli_helpers import says


def text(name, content):
    """Writes a file of the dataset."""

    def change(folder):
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def refused(folder, run, *words):
    """What a program is asked for fails with the words, and every file stays as it was."""
    (folder / "out").mkdir(exist_ok=True)
    (folder / "out" / "model_final.pth").write_text("an earlier run's")
    before = contents(folder)
    assert says(run(), *words)
    after = contents(folder)
    assert {path: after.get(path) for path in before} == before
    assert not [path for path in after.keys() - before.keys() if path.endswith((".pth", ".yaml"))]


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files}
