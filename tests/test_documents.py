"""Commands, messages, keys and links in the documents are those of the project."""

import ast
import functools
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from cli_helpers import load_program

from ion_d2.engine.setup import load_config
from ion_d2.value_rules import value_of

ROOT = Path(__file__).resolve().parent.parent
DOCS = {path.stem: path for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
DOCS["programs"] = ROOT / "tools" / "README.md"
FOR_USERS = ["README", "GETTING_STARTED", "TROUBLESHOOTING", "DATA", "PROPOSALS", "TRAINING"]
FOR_USERS += ["EXPORT", "REPORT"]
GAP = "…"


@functools.cache
def read(name):
    return DOCS[name].read_text(encoding="utf-8")


def commands(text):
    """Arguments of the Python programs that a document's blocks and inline code start."""
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
    lines = [*blocks.replace("\\\n", " ").splitlines(), *re.findall(r"`(python [^`]+)`", text)]
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[:1] == ["python"] and words[1].endswith(".py") and "..." not in words:
            yield words[1], words[2:]


def parse(program, arguments):
    """What a program's own parser makes of arguments; None if it has none that can be asked."""
    module = load_program(program)
    if program == "train_net.py":
        return module._parse(arguments)
    if hasattr(module, "parse_args"):
        return module.parse_args(arguments)
    if hasattr(module, "build_parser"):
        parser = module.build_parser()
        try:
            return parser.parse_intermixed_args(arguments)
        except TypeError:  # it has commands of its own, with arguments of theirs
            return parser.parse_args(arguments)
    source = (ROOT / program).read_text(encoding="utf-8")
    assert all(f'"{word}"' in source for word in arguments if word.startswith("--"))
    return None


@pytest.mark.parametrize("name", FOR_USERS)
def test_commands_are_understood(name):
    found = list(commands(read(name)))
    assert found
    for program, arguments in found:
        try:
            opts = getattr(parse(program, arguments), "opts", None) or []
        except SystemExit:
            pytest.fail(f"{program} does not understand {arguments}")
        load_config(str(ROOT / "configs/ion_tiny.yaml"), opts)  # a wrong key or type is an error


def templates():
    """All texts in the project's and fvcore's code, with a gap for each value put into them."""
    files = [ROOT / "train_net.py", ROOT / "demo.py"]
    for package in ("ion_d2", "ion_lab", "tools"):
        files += (ROOT / package).rglob("*.py")
    files.append(Path(importlib.util.find_spec("fvcore.common.checkpoint").origin))
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub(r"%[.\d]*[srdg]", GAP, node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (getattr(part, "value", None) for part in node.values)
                yield "".join(part if isinstance(part, str) else GAP for part in parts)


def test_quoted_messages_are_the_projects():
    quotes = re.findall(r"^> (.+)$", read("TROUBLESHOOTING"), re.MULTILINE)
    assert len(quotes) > 20
    known = "\n".join(text.replace("\n", " ") for text in templates())
    for quote in quotes:
        pattern = ".*".join(re.escape(part) for part in quote.split(GAP))
        assert re.search(pattern, known), quote


def test_named_keys_exist():
    cfg = load_config(str(ROOT / "configs/ion_tiny.yaml"))
    groups = "MODEL|INPUT|TEST|DATASETS|DATALOADER|SOLVER|DISTRIBUTED"
    text = "\n".join(map(read, DOCS))
    keys = set(re.findall(rf"\b(?:{groups})(?:\.[A-Z_0-9]+)+", text))
    assert len(keys) > 120
    assert [key for key in keys if value_of(cfg, key, "missing") == "missing"] == []


# One whose name stands for those of all rows, and a program of Detectron2's.
STAND_INS = {"configs/paper/ROW.yaml", "tools/lazyconfig_train_net.py"}


def test_named_files_exist():
    folders, endings = "configs|tools|docs|ion_d2|ion_lab", "yaml|py|txt|md|jpg|png"
    pattern = rf"(?<![\w/])(?:{folders})/[\w./-]+\.(?:{endings})"
    files = set(re.findall(pattern, "\n".join(map(read, DOCS)))) - STAND_INS
    assert len(files) > 60
    assert [file for file in files if not (ROOT / file).is_file()] == []


def anchors(text):
    """The names that GitHub gives to a document's headings."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", DOCS)
def test_links_lead_somewhere(name):
    for link in re.findall(r"\]\(([^)\s]+)\)", read(name)):
        path, _, anchor = link.partition("#")
        target = (DOCS[name].parent / path) if path else DOCS[name]
        if "://" not in link:
            assert target.exists(), link
            if anchor:
                assert anchor in anchors(target.read_text(encoding="utf-8")), link


def test_every_program_is_listed():
    programs = {p.name for p in (ROOT / "tools").glob("*.py") if "__main__" in p.read_text()}
    assert programs
    assert programs <= set(re.findall(r"`(\w+\.py)`", read("programs")))
