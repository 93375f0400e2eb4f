"""What importing the package loads, with Detectron2 and without, in interpreters of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("cv2", "jinja2", "matplotlib", "scipy")
LAZY = ("api", "data", "engine", "evaluation", "export", "report", "study")
BLOCKED = """
import sys
for name in ("detectron2", "fvcore", "iopath", "yacs", "cv2", "scipy", "matplotlib", "torchvision"):
    sys.modules[name] = None  # as if it were not installed
"""


def run(program):
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=variables
    )


def modules_after(statement):
    done = run(f"import json, sys; {statement}; print(json.dumps(sorted(sys.modules)))")
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def loaded():
    pytest.importorskip("detectron2.modeling", exc_type=ImportError)
    return modules_after("import ion_d2")


def test_import_loads_nothing_heavy_that_the_models_of_detectron2_do_not(loaded):
    more = loaded - modules_after("import detectron2.modeling")
    assert sorted(more & set(HEAVY)) == []
    assert "detectron2.engine" not in more and "detectron2.evaluation" not in more


@pytest.mark.parametrize("module", LAZY)
def test_import_leaves_what_is_not_needed(loaded, module):
    assert f"ion_d2.{module}" not in loaded


def test_import_registers_the_parts_at_once():
    program = (
        "import ion_d2; from detectron2.modeling import META_ARCH_REGISTRY as m, "
        "ROI_HEADS_REGISTRY as r, BACKBONE_REGISTRY as b, SEM_SEG_HEADS_REGISTRY as s; "
        "print('ION' in m, 'IONROIHeads' in r, 'build_ion_context_backbone' in b, "
        "'IONSegHead' in s)"
    )
    assert run(program).stdout.split() == ["True"] * 4


def test_every_public_name_is_there_and_listed():
    import ion_d2

    assert set(ion_d2.__all__) <= set(dir(ion_d2))
    for name in ion_d2.__all__:
        assert getattr(ion_d2, name).__name__.split(".")[-1] == name
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = ion_d2.no_such_name


@pytest.mark.parametrize("module", ["config", "data", "engine", "evaluation", "plugging"])
def test_modules_are_attributes_without_an_import_of_their_own(module):
    done = run(f"import ion_d2; print(ion_d2.{module}.__name__)")
    assert done.stdout.split() == [f"ion_d2.{module}"], done.stderr


@pytest.mark.parametrize(
    "statement",
    [
        "from ion_d2.layers import l2_normalize, spatial_irnn",
        "import ion_d2; spatial_irnn, l2_normalize = "
        "ion_d2.layers.spatial_irnn, ion_d2.layers.l2_normalize",
    ],
)
def test_layers_work_with_pytorch_alone(statement):
    use = "x = torch.ones(1, 2, 4, 5); y = l2_normalize(spatial_irnn(x), 'position')"
    done = run(f"{BLOCKED}\nimport torch\n{statement}\n{use}\nprint(tuple(y.shape))")
    assert done.stdout.strip() == "(1, 8, 4, 5)", done.stderr


def test_the_exception_is_there_without_detectron2():
    assert run(f"{BLOCKED}\nimport ion_d2\nprint(ion_d2.IONError.__name__)").stdout == "IONError\n"


@pytest.mark.parametrize(
    "statement",
    [
        "import ion_d2; ion_d2.add_ion_config",
        "from ion_d2 import add_ion_config",
        "from ion_d2 import get_config",
        "import ion_d2; ion_d2.modeling",
        "import ion_d2.modeling",
        "import ion_d2.modeling.backbone.vgg",
        "from ion_d2 import *",
        "from ion_d2 import lazy",
        *(f"import ion_d2.{module}" for module in ("config", *LAZY)),
    ],
)
def test_the_rest_says_what_to_install(statement):
    done = run(f"{BLOCKED}\n{statement}")
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("ImportError: ion_d2 needs Detectron2, which is not installed")
