"""The worked examples of CONTRIBUTING.md: what they name, and the project as they change it."""

import importlib.util
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = re.split(r"^### ", TEXT, flags=re.MULTILINE)[1:]
# A block of code, or a path: `PATH`, or (PATH) of a link.
_PATH = r"[\w.-]+(?:/[\w.-]+)+|\w+\.(?:md|cff)"
_PIECES = re.compile(rf"```(\w+)\n(.*?)```|[`(]({_PATH})[`)]", re.DOTALL)


def paths_in(text):
    return {path for _, _, path in _PIECES.findall(text) if path}


def is_new(path):
    return f"`{path}` (new)" in TEXT


def read(path):
    return "" if is_new(path) else (ROOT / path).read_text(encoding="utf-8")


def files_after(title):
    """The files that an example changes, as it leaves them: path -> source."""
    (text,) = (example for example in EXAMPLES if example.startswith(f"{title}\n"))
    sources, path = {}, None
    for kind, block, named in _PIECES.findall(text):
        path = named or path
        if kind:
            source = sources.get(path, read(path))
            sources[path] = source + block if kind == "python" else _edited(source, block)
    return sources


def _edited(source, diff):
    for hunk in diff.split("@@\n"):
        old, new = (
            "".join(f"\n{line[1:]}" for line in hunk.splitlines() if line[0] in marks) + "\n"
            for marks in (" -", " +")
        )
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    return source


def import_changed(title, users, monkeypatch):
    """Import what an example changes, and then the files that use it, until the test ends.

    Returns the modules by the names of their files. Other modules keep what they have imported.
    """
    modules = {}
    for path, source in {**files_after(title), **{path: read(path) for path in users}}.items():
        name = path[: -len(".py")].replace("/", ".").replace(".__init__", "")
        if name.startswith("ion_") and not is_new(path):
            importlib.import_module(name)  # for those others
        spec = importlib.util.spec_from_file_location(name, ROOT / path)
        module = modules[Path(path).stem] = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(source, path, "exec"), vars(module))
    return modules
