#!/usr/bin/env python
"""Write docs/CONFIG.md: ION's config keys, from the comments in ion_d2/config.py.

python tools/config_reference.py
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from detectron2.config import get_cfg

import ion_d2.config
from ion_d2.config import add_ion_config
from ion_d2.engine.setup import run_cli
from ion_d2.errors import IONError
from ion_d2.evaluation.results_file import write_text
from ion_d2.value_rules import value_of

_GROUPS = "MODEL|DATASETS|DATALOADER|INPUT|SOLVER|TEST|DISTRIBUTED"
OUTPUT = Path(__file__).resolve().parents[1] / "docs" / "CONFIG.md"

INTRODUCTION = """\
# Config keys

Made by `python tools/config_reference.py` from the comments in
[ion_d2/config.py](../ion_d2/config.py): change those.

Any key can stand in a YAML file or at the end of a command, as `KEY VALUE`. Lists are quoted for
the shell: `DATASETS.TEST "('voc:PATH:test',)"`, `MODEL.VGG.OUT_FEATURES "['conv3', 'conv5']"`. A
key that does not exist and a value out of range stop the run before it starts, with a sentence that
names the key.

The defaults are those of a config that sets nothing. The files in `configs/` set many keys; the
`config.yaml` in the folder of a run holds the value of every key. Section numbers ("sec.") and
tables are those of the [ION paper](https://arxiv.org/abs/1512.04143).
"""

# Keys of Detectron2 which mean something else, or something more, in this project's programs.
DETECTRON2_KEYS = {
    "MODEL.META_ARCHITECTURE": '"ION" is "GeneralizedRCNN" whose context stops where each image '
    "ends, with the segmentation loss and averaging over mirrored images.",
    "MODEL.WEIGHTS": "Also torchvision's VGG files as they are, by path or URL. A file of which "
    "nothing fits the model is an error; so is a missing part, unless a training starts from it.",
    "MODEL.DEVICE": '"cuda" is the CPU on a machine without a GPU. Any other device that is not '
    "there is an error.",
    "MODEL.BACKBONE.FREEZE_AT": "Number of first blocks that are not trained: of VGG's conv1 to "
    "conv5, or of timm's stages. SOLVER.STAGES may change it during a training.",
    "MODEL.LOAD_PROPOSALS": "With an RPN, the loaded boxes stand beside its own; with "
    'MODEL.PROPOSAL_GENERATOR.NAME "PrecomputedProposals" they are the only ones. Where it is '
    "False, the files of DATASETS.PROPOSAL_FILES_TRAIN and PROPOSAL_FILES_TEST are not read, which "
    "a warning tells.",
    "MODEL.ROI_HEADS.NUM_CLASSES": "0 takes the number of classes from the data. Any other number "
    "must be the data's.",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": "0 takes the number of classes from the data, plus one for "
    "the background. Class ids of label maps start at 0, which is the background.",
    "DATASETS.TRAIN": 'Also "voc:PATH:SPLIT", "coco:JSON:IMAGE_DIR", "yolo:DATA.YAML:SPLIT" and '
    '"labelme:DIR" (docs/DATA.md). All sets must have the same classes in the same order.',
    "DATASETS.TEST": "As DATASETS.TRAIN. A training looks at these pictures and labels before it "
    "starts.",
    "DATALOADER.SAMPLER_TRAIN": 'Only "TrainingSampler": the images of an iteration follow from '
    "SEED and its number, so that --resume goes on exactly.",
    "INPUT.FORMAT": '"BGR", "RGB" or "L" (one gray channel).',
    "SOLVER.MAX_ITER": "Iterations of the whole training. With SOLVER.STAGES it becomes their sum.",
    "SOLVER.IMS_PER_BATCH": "Images of a step over all processes, a multiple of their number. "
    "SOLVER.IMS_PER_PASS divides them into passes that need less memory.",
    "SOLVER.AMP.ENABLED": "Mixed precision, in the type of SOLVER.AMP.PRECISION. On a CPU, "
    '"bfloat16" alone.',
    "TEST.EVAL_PERIOD": "Iterations between two evaluations; 0 evaluates after the last one alone. "
    "The last one is always evaluated.",
    "TEST.AUG.ENABLED": "Evaluates with averages over sizes and mirrors as well, after the plain "
    "evaluation of a finished training and with --eval-only.",
    "TEST.PRECISE_BN.ENABLED": "Measures the statistics of batch normalization before each "
    'evaluation of a training, not those of batch renormalization ("BRN"), whose own the weights '
    "were trained with. A training refuses it where nothing is left to measure; --eval-only "
    "evaluates with the statistics of the weights' file.",
    "SEED": "Below 0, a seed is drawn and logged. Random numbers depend on the seed and the "
    "iteration alone.",
}


def read_meanings() -> dict[str, str]:
    """The comment above each key of ion_d2/config.py, on one line; "" where there is none."""
    meanings, comment = {}, []
    for line in Path(ion_d2.config.__file__).read_text(encoding="utf-8").splitlines():
        if line.startswith("    # "):
            comment.append(line[6:])
        elif key := re.match(r'    "([A-Z][A-Z0-9_.]+)": ', line):
            meanings[key[1]], comment = " ".join(comment), []
    return meanings


def make_reference() -> str:
    """The text of docs/CONFIG.md.

    Raises:
        IONError: a key has no comment.
    """
    cfg = get_cfg()
    add_ion_config(cfg)
    rows: dict[str, list[str]] = {}
    for key, meaning in read_meanings().items():
        if not meaning:
            raise IONError(f"ion_d2/config.py does not explain {key}; write a comment above it.")
        value = value_of(cfg, key)
        row = f"| `{key}` | {_type(value)} | `{value!r}` | {_markdown(meaning)} |"
        rows.setdefault(_section(key), []).append(row)
    parts = [INTRODUCTION]
    for section, lines in rows.items():
        head = "| key | type | default | meaning |\n|---|---|---|---|"
        parts.append("\n".join([f"## {section}\n", head, *lines, ""]))
    parts.append("## Detectron2's keys that mean more here\n\n| key | meaning |\n|---|---|")
    parts[-1] += "".join(f"\n| `{k}` | {_markdown(v)} |" for k, v in DETECTRON2_KEYS.items())
    return "\n".join(parts) + "\n"


def _section(key: str) -> str:
    """``MODEL.CONTEXT`` for a key of it; keys of the other groups stand together."""
    names = key.split(".")[:-1] or ["Others"]
    return ".".join(names if names[0] == "MODEL" else names[:1])


def _type(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "list"
    kinds = {bool: "True or False", int: "whole number", float: "number", str: "text"}
    return kinds[type(value)]


def _markdown(text: str) -> str:
    """Escape what would break a table; keys as code, documents as links."""
    text = text.replace("|", r"\|").replace("<", "&lt;").replace("*", r"\*")
    text = re.sub(r"\bdocs/(\w+\.md)", r"[\1](\1)", text)
    return re.sub(rf"\b(?:{_GROUPS})(?:\.[A-Z0-9_]+)+\b", r"`\g<0>`", text)


def main() -> None:
    """Write the file."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    write_text(str(OUTPUT), make_reference())


if __name__ == "__main__":
    run_cli(main)
