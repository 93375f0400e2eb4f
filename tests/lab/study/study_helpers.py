"""A small table, and a program that stands for train_net.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

from ion_lab.study import Study, read_table

ROOT = Path(__file__).resolve().parents[3]

# Understands train_net.py's arguments: "trains" ten steps, a checkpoint each, and goes on from the
# last. TEST.EVAL_PERIOD (which no training here uses) chooses what happens: 1 fails in step 4, 2
# waits there until it is stopped, 3 leaves no results, 6 no weights, 4 waits at its end for a
# file "release" beside the folders of runs, 5 until another training has begun. What it starts from
# is copied to given.pth, and its weights from a file prepared.pth beside the folders of runs.
FAKE = """
import json, os, shutil, sys, time
words = sys.argv[1:]
value = lambda key: words[words.index(key) + 1]
folder, mode = value("OUTPUT_DIR"), value("TEST.EVAL_PERIOD")
checkpoint = os.path.join(folder, "model_0000000.pth")
last = os.path.join(folder, "last_checkpoint")
if os.path.exists(last) and not os.path.exists(os.path.join(folder, open(last).read())):
    sys.exit("error: last_checkpoint names a file that is not there")
first = int(open(checkpoint).read()) if "--resume" in words and os.path.exists(checkpoint) else 0
with open(os.path.join(folder, "calls.txt"), "a") as file:
    weights = value("MODEL.WEIGHTS") if "MODEL.WEIGHTS" in words else "-"
    if weights != "-":
        shutil.copy(weights, os.path.join(folder, "given.pth"))
    told = [str(first), os.environ["OMP_NUM_THREADS"], weights, str(time.time())]
    file.write(" ".join(told) + chr(10))
for step in range(first, 10):
    if mode == "1" and step == 4:
        sys.exit("error: the loss is not finite")
    if mode == "2" and step == 4 and not first:
        time.sleep(60)
    with open(checkpoint, "w") as file:
        file.write(str(step + 1))
if mode != "6":
    open(os.path.join(folder, "model_final.pth"), "w").close()
    with open(last, "w") as file:
        file.write("model_final.pth")
runs = os.path.dirname(folder)
if os.path.exists(os.path.join(runs, "prepared.pth")):
    shutil.copy(os.path.join(runs, "prepared.pth"), os.path.join(folder, "model_final.pth"))
begun = lambda: sum(os.path.exists(os.path.join(runs, n, "calls.txt")) for n in os.listdir(runs))
released = lambda: os.path.exists(os.path.join(runs, "release"))
while mode == "4" and not released() or mode == "5" and begun() < 2:
    time.sleep(0.02)
ap = 10.0 * len(json.loads(value("MODEL.ROI_HEADS.IN_FEATURES").replace("'", '"')))
ap += int(value("SEED"))
report = {"classes": {"cross": {"area": {"AP50": ap}}, "triangle": {"area": {"AP50": ap + 2}}}}
if mode != "3":
    with open(os.path.join(folder, "voc_results.json"), "w") as file:
        json.dump(report, file)
with open(os.path.join(folder, "calls.txt"), "a") as file:
    file.write(f"end {time.time()}" + chr(10))
"""

# What makes of configs/ion_tiny.yaml a model whose heads read these features and nothing else.
PLAIN = {
    "MODEL.BACKBONE.NAME": "build_ion_vgg_backbone",
    "MODEL.VGG.OUT_FEATURES": ["conv4", "conv5"],
}
CONV5 = {"MODEL.ROI_HEADS.IN_FEATURES": ["conv5"], "TEST.EVAL_PERIOD": 0}
SKIP = {"MODEL.ROI_HEADS.IN_FEATURES": ["conv4", "conv5"], "TEST.EVAL_PERIOD": 0}


def content(**changes):
    """The content of a table's file."""
    scenes = {"train": 2, "test": 1, "families": ["ordinary"], "size": 128}
    return {
        "title": "A small table",
        "question": "What is better?",
        "config": str(ROOT / "configs" / "ion_tiny.yaml"),
        "keys": PLAIN,
        "data": {"scenes": {"scenes": scenes}},
        "rows": {"conv5": dict(CONV5), "skip": dict(SKIP)},
        "columns": {"ordinary": "classes/*/area/AP50"},
        "baseline": "conv5",
        "full": {"seeds": [0, 1]},
        "quick": {"seeds": [0], "keys": {"SOLVER.MAX_ITER": 5}},
        **changes,
    }


def write_table(folder, **changes):
    """A table's file."""
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(content(**changes), sort_keys=False))
    return path


def make_study(folder, *, tell=None, changes=None, **settings):
    """A study by the program that stands for train_net.py."""
    fake = folder / "fake.py"
    fake.write_text(FAKE)
    return Study(
        table=read_table(write_table(folder, **(changes or {}))),
        out=folder / "out",
        command=(sys.executable, str(fake)),
        tell=tell or (lambda line: None),
        **{"jobs": 1, **settings},
    )


def run_folders(study):
    """Names of the folders of all runs."""
    return sorted(path.name for path in (study.out / "runs").iterdir() if path.is_dir())


def calls(study):
    """Folder of each run -> the step at which each of its processes began."""
    return {
        path.parent.name: [
            int(line.split()[0])
            for line in path.read_text().splitlines()
            if not line.startswith("end")
        ]
        for path in sorted((study.out / "runs").glob("*/calls.txt"))
    }


def results(study):
    """Content of results.json."""
    return json.loads((study.folder / "results.json").read_text())
