"""Files for VOC's server, and VOC sets under Detectron2's own evaluator, which reads such files."""

import json

import numpy as np
import pytest
from box_helpers import output_of, run
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import PascalVOCDetectionEvaluator
from detectron2.evaluation.pascal_voc_evaluation import voc_eval
from model_helpers import small_config
from voc_folder import object_xml, write_split, write_voc

from ion_d2.data.catalog import ensure_registered
from ion_d2.errors import IONError
from ion_d2.evaluation import build_evaluators

pytestmark = pytest.mark.usefixtures("catalogs")

FIELDS = "<pose>Left</pose><truncated>0</truncated><difficult>{}</difficult>"
CLASSES = ("cat", "dog")


@pytest.fixture
def folder(tmp_path):
    """Eight pictures with a few overlapping objects each, some of them difficult."""
    rng = np.random.default_rng(0)
    images = {}
    for number in range(8):
        corners = rng.integers(1, 20, (4, 2)).tolist()
        sizes = rng.integers(6, 11, (4, 2)).tolist()
        images[f"2007_{number:06}"] = [
            object_xml(CLASSES[k % 2], (x, y, x + w, y + h), FIELDS.format(int(k == 3)))
            for k, ((x, y), (w, h)) in enumerate(zip(corners, sizes))
        ]
    return write_voc(tmp_path / "VOC2012", images, split="val")


def detections(name, seed=0):
    """Detections near the objects, and some astray; (records, outputs)."""
    rng = np.random.default_rng(seed)
    records = DatasetCatalog.get(name)
    outputs = []
    for record in records:
        objects = record.get("annotations", ())
        boxes = [np.array(a["bbox"]) + rng.uniform(-2.5, 2.5, 4) for a in objects]
        boxes += [np.array([3, 3, 20, 20.0]) + rng.uniform(-2, 2, 4) for _ in range(2)]
        classes = [a["category_id"] for a in objects] + [0, 1]
        # What both evaluators' files can hold: boxes of one decimal, scores of three.
        scores = np.round(rng.uniform(0.1, 1, len(boxes)), 3)
        size = (record["height"], record["width"])
        outputs.append(output_of(np.round(boxes, 1), scores, classes, size))
    return records, outputs


def config(name, output, *opts):
    ensure_registered([name])
    fixed = ("DATASETS.TEST", (name,), "OUTPUT_DIR", output, "MODEL.ROI_HEADS.NUM_CLASSES", 2)
    return small_config(*fixed, *opts)


@pytest.mark.parametrize(("year", "metric"), [(2007, "11point"), (2012, "area")])
def test_detectron2s_evaluator_gives_our_figures(folder, tmp_path, year, metric):
    root = folder.rename(tmp_path / f"VOC{year}")
    name = f"voc:{root}:val"
    cfg = config(name, tmp_path / "out")
    records, outputs = detections(name)
    ours = run(build_evaluators(cfg, name), records, outputs)[f"bbox_{metric}"]
    theirs = run(PascalVOCDetectionEvaluator(name), records, outputs)["bbox"]
    assert 0 < ours["AP"] < ours["AP50"] < 100
    assert ours == pytest.approx({key: theirs[key] for key in ours}, abs=1e-6)


def test_the_files_hold_what_is_evaluated(folder, tmp_path):
    name = f"voc:{folder}:val"
    cfg = config(name, tmp_path / "out", "TEST.VOC_SERVER_FILES", True)
    records, outputs = detections(name)
    ours = run(build_evaluators(cfg, name), records, outputs)["bbox_area"]
    files = f"{tmp_path}/out/results/VOC2012/Main/comp4_det_val_{{}}.txt"
    labels, split = f"{folder}/Annotations/{{}}.xml", f"{folder}/ImageSets/Main/val.txt"
    aps = [voc_eval(files, labels, split, category)[2] for category in CLASSES]
    assert ours["AP50"] == pytest.approx(100 * np.mean(aps), abs=1e-6)


@pytest.fixture
def withheld(folder):
    for path in (folder / "Annotations").iterdir():
        path.unlink()
    (folder / "classes.txt").write_text("cat\nbig dog\nown/ed\n")
    write_split(folder, "test", (folder / "ImageSets" / "Main" / "val.txt").read_text())
    return f"voc:{folder}:test"


def test_a_set_without_annotations_gives_files_and_no_figures(withheld, tmp_path, caplog):
    cfg = config(withheld, tmp_path / "out")
    records = DatasetCatalog.get(withheld)
    boxes = [[0.0, 0, 40, 30], [1.25, 2.04, 10.96, 11.5]]
    found = output_of(boxes, [0.7027321, 1e-4], [0, 1], (30, 40))
    nothing = output_of(size=(30, 40))
    outputs = [nothing, found, *[nothing] * 6]
    with caplog.at_level("WARNING", logger="ion_d2"):
        assert run(build_evaluators(cfg, withheld), records, outputs) == {}
    assert "no average precision" in caplog.text
    files = tmp_path / "out" / "results" / "VOC2012" / "Main"
    assert {path.name: path.read_text() for path in files.iterdir()} == {
        "comp4_det_test_cat.txt": "2007_000001 0.702732 1.0 1.0 40.0 30.0\n",
        "comp4_det_test_big_dog.txt": "2007_000001 0.000100 2.2 3.0 11.0 11.5\n",
        "comp4_det_test_own_ed.txt": "",
    }
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())) == 2
    assert not (tmp_path / "out" / "voc_results.json").exists()


def test_ids_that_the_files_cannot_hold_are_told(tmp_path):
    root = write_voc(tmp_path / "VOC", {"my cat": [object_xml("cat", (1, 1, 9, 9))]})
    name = f"voc:{root}:train"
    cfg = config(name, tmp_path / "out", "TEST.VOC_SERVER_FILES", True)
    with pytest.raises(IONError, match="'my cat'.*TEST.VOC_SERVER_FILES"):
        build_evaluators(cfg, name)


def test_vocs_own_test_set_has_a_name(folder):
    MetadataCatalog.pop("voc_2012_trainval")
    MetadataCatalog.get("voc_2012_trainval").set(
        dirname=str(folder), thing_classes=["cat", "dog"], year=2012
    )
    with pytest.raises(IONError, match=r"test\.txt"):
        ensure_registered(["voc_2012_test"])
    write_split(folder, "test", (folder / "ImageSets" / "Main" / "val.txt").read_text())
    ensure_registered(["voc_2012_test"])
    metadata = MetadataCatalog.get("voc_2012_test")
    assert (metadata.evaluator_type, metadata.year, metadata.split) == ("pascal_voc", 2012, "test")
    assert len(DatasetCatalog.get("voc_2012_test")) == 8
