"""The floors of the house: nothing imports what stands above it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A room may import from rooms with a lower number alone; beside itself.
FLOORS = {
    **dict.fromkeys(["ion_d2.errors", "ion_d2._require", "ion_d2.compat"], 0),
    **dict.fromkeys(["ion_d2.files", "ion_d2.layers", "ion_d2.config", "ion_d2.value_rules"], 1),
    "ion_d2.shell": 1,
    "ion_d2.clipping": 2,
    **dict.fromkeys(["ion_d2.modeling", "ion_d2.data"], 3),
    **dict.fromkeys(["ion_d2.plugging", "ion_d2.evaluation"], 4),
    "ion_d2.engine": 5,
    **dict.fromkeys(["ion_d2.api", "ion_d2.export", "ion_d2.lazy"], 6),
    "ion_d2": 7,
    "ion_lab": 8,
}


def room_of(module):
    return max((r for r in FLOORS if f"{module}.".startswith(f"{r}.")), key=len, default=None)


def imports(path):
    """Absolute names of what a file imports from our packages."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    package = parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def modules():
    for package in ("ion_d2", "ion_lab"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


@pytest.mark.parametrize("package", ["ion_d2", "ion_lab"])
def test_nothing_imports_upward(package):
    upward, seen = [], 0
    for module, path in modules():
        room = room_of(module)
        if module.split(".")[0] != package or module == "ion_d2":
            continue
        for name in imports(path):
            other = room_of(name)
            if other not in (None, room):
                seen += 1
                if FLOORS[other] >= FLOORS[room]:
                    upward.append(f"{module} imports {name}")
    assert upward == [] and seen > 50
