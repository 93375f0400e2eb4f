"""train_net.py from the command line: bad input is told in one sentence, with exit status 1."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from cli_helpers import arguments, says, voc_arguments
from voc_folder import annotation_xml, write_label, write_split

pytestmark = pytest.mark.slow


@pytest.fixture
def own_scenes(scenes, tmp_path):
    """A copy of the scenes that a test may damage."""
    return Path(shutil.copytree(scenes, tmp_path / "VOC"))


def picture(folder, split):
    return folder / "JPEGImages" / f"{split_ids(folder, split)[0]}.jpg"


def split_ids(folder, split):
    return (folder / "ImageSets/Main" / f"{split}.txt").read_text().split()


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def test_missing_option_shows_the_usage(train_net):
    status, _, err = train_net()
    assert status == 2 and "--config-file is required" in err


def test_wrong_files_and_names(train_net, scenes, tmp_path):
    gone = "configs/gone.yaml"
    assert says(train_net("--config-file", gone), gone, "does not exist")
    good, out = f"voc:{scenes}:trainval", tmp_path / "out"
    wrong = {
        "voc_2007_trainvall": ("no dataset 'voc_2007_trainvall'", "voc_2007_trainval "),
        f"voc:{tmp_path}/none:trainval": (f"{tmp_path}/none does not exist",),
        f"voc:{scenes}:val": ("val.txt", "test, train"),
        f"coco:{tmp_path}/a.json:{tmp_path}": ("a.json does not exist",),
    }
    for name, words in wrong.items():
        assert says(train_net(*arguments(name, good, out)), *words)
    assert not out.exists()


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (("SOLVER.BASELR", 1), ("SOLVER.BASELR", "Did you mean SOLVER.BASE_LR?")),
        (("MODEL.ROI_HEADS.NUM_CLASSES", 5), ("NUM_CLASSES is 5", "has 2 classes", "set it to 2")),
        (("DATASETS.TRAIN", "voc:a:b"), ("DATASETS.TRAIN", "('NAME',)")),
        (("DATASETS.TRAIN", "()"), ("DATASETS.TRAIN names no dataset",)),
        (("MODEL.META_ARCHITECTURE", "IONN"), ("'IONN'", "META_ARCH")),
        (("MODEL.DEVICE", "gpu"), ("MODEL.DEVICE is 'gpu'",)),
        (("SOLVER.IMS_PER_BATCH", 0), ("SOLVER.IMS_PER_BATCH is 0",)),
        (("SOLVER.MAX_ITER", 0), ("SOLVER.MAX_ITER is 0",)),
        (("SOLVER.AMP.ENABLED", True), ("SOLVER.AMP.ENABLED needs a GPU", "MODEL.DEVICE is 'cpu'")),
        (("SOLVER.EMA_DECAY", 2.0), ("SOLVER.EMA_DECAY is 2.0",)),
        (("TEST.PATIENCE", 2), ("TEST.PATIENCE is 2", "TEST.BEST_METRIC")),
        (("SOLVER.LR_SCHEDULER_NAME", "Linear"), ("SOLVER", "Linear")),
        (("SOLVER.STAGES", "[{'MAX_ITER': 1}]"), ("SOLVER.STAGES[0] has no BASE_LR",)),
        (("SOLVER.STAGES", "[{'MAX_ITER': 2, 'BASE_LR': 1}]"), ("SOLVER.MAX_ITER", "no effect")),
        (("SOLVER.IMS_PER_PASS", -1), ("SOLVER.IMS_PER_PASS is -1",)),
        (("SOLVER.AMP.ENABLED", True), ("SOLVER.AMP.ENABLED needs a GPU",)),
        (("DATALOADER.NUM_WORKERS", -1), ("DATALOADER.NUM_WORKERS is -1",)),
        (("SOLVER.CHECKPOINT_PERIOD", 0), ("SOLVER.CHECKPOINT_PERIOD is 0",)),
        (("TEST.EVAL_PERIOD", -1), ("TEST.EVAL_PERIOD is -1",)),
        (("TEST.NUM_PICTURES", -1), ("TEST.NUM_PICTURES is -1",)),
        (("TEST.VOC_METRIC", "Area"), ('"Area"', "TEST.VOC_METRIC")),
        (("TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", "()"), ("TEST.AUG.MIN_SIZES is empty",)),
        (("TEST.SEM_SEG", True), ("TEST.SEM_SEG is True", "MODEL.SEG_REGULARIZER_ON")),
        (("MODEL.WEIGHTS", "gone.pth"), ("MODEL.WEIGHTS gone.pth is not a file",)),
    ],
    ids=lambda value: str(value[0]),
)
def test_wrong_settings(train_net, scenes, tmp_path, opts, words):
    assert says(train_net(*voc_arguments(scenes, tmp_path / "out", *opts)), *words)


def test_wrong_weights(train_net, scenes, tmp_path):
    empty, other = tmp_path / "empty.pth", tmp_path / "other.pth"
    empty.touch()
    torch.save({"stem.weight": torch.zeros(3)}, other)
    for flags in ((), ("--eval-only",)):
        for path, word in ((empty, "not a readable checkpoint"), (other, "stem.weight")):
            args = voc_arguments(scenes, tmp_path, "MODEL.WEIGHTS", path, flags=flags)
            assert says(train_net(*args), str(path), word)
    args = voc_arguments(scenes, tmp_path, flags=["--eval-only"])
    assert says(train_net(*args), "--eval-only needs weights")


def test_faults_of_the_test_data_are_told_before_the_training(train_net, own_scenes, tmp_path):
    for change in (
        lambda: write_split(own_scenes, "test", "gone\n"),
        lambda: picture(own_scenes, "trainval").unlink(),
    ):
        (own_scenes / "classes.txt").write_text("cross\ntriangle\n")
        change()
        result = train_net(*voc_arguments(own_scenes, tmp_path / "out"))
        assert says(result, "has no picture")
        assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_base_that_is_not_there(train_net, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text('_BASE_: "gone.yaml"\n')
    assert says(train_net("--config-file", config), "mine.yaml", f"{tmp_path}/gone.yaml", "_BASE_")
    config.write_bytes(b"MODEL: {WEIGHTS: '\xfa'}\n")
    assert says(train_net("--config-file", config), "mine.yaml", "utf-8", "decode")


def test_a_model_of_other_classes_is_not_evaluated(train_net, own_scenes, tmp_path):
    out = tmp_path / "out"
    assert train_net(*voc_arguments(own_scenes, out))[0] == 0
    trained = (out / "config.yaml").read_text()
    other = Path(shutil.copytree(own_scenes, tmp_path / "other"))
    (other / "classes.txt").write_text("cross\ntriangle\nlamp\n")
    args = voc_arguments(
        other, out, "MODEL.WEIGHTS", out / "model_final.pth", flags=["--eval-only"]
    )
    assert says(train_net(*args), "model_final.pth was trained on other classes", "'lamp'")
    held = torch.load(out / "model_final.pth", weights_only=False)
    del held["class_names"]  # as files of earlier versions have none
    torch.save(held, out / "model_final.pth")
    words = ("model_final.pth is not of this model", "(3, 32) there and (4, 32) here")
    assert says(train_net(*args), *words)
    assert (out / "config.yaml").read_text() == trained


def test_more_gpus_than_there_are(train_net, scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    args = voc_arguments(scenes, tmp_path, flags=["--num-gpus", "7"])
    assert says(train_net(*args), "--num-gpus is 7", "0 GPUs")


def test_output_folder_that_is_a_file(train_net, scenes, tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        assert says(train_net(*voc_arguments(scenes, place)), "OUTPUT_DIR", str(place))


def test_checkpoint_to_resume_from_is_gone(train_net, scenes, tmp_path):
    (tmp_path / "last_checkpoint").write_text("model_0000099.pth")
    args = voc_arguments(scenes, tmp_path, flags=["--resume"])
    assert says(train_net(*args), "last_checkpoint", "model_0000099.pth")


@pytest.mark.parametrize(("split", "workers"), [("trainval", 0), ("trainval", 2), ("test", 0)])
def test_truncated_picture_is_named(train_net, own_scenes, tmp_path, split, workers):
    broken = truncate(picture(own_scenes, split))
    steps = ("SOLVER.IMS_PER_BATCH", 8, "DATALOADER.NUM_WORKERS", workers)
    args = voc_arguments(own_scenes, tmp_path / "out", *steps)
    assert says(train_net(*args), str(broken), "INPUT.SKIP_UNREADABLE True")
    # What was reached before stays.
    assert (tmp_path / "out" / "model_final.pth").exists() == (split == "test")


def test_truncated_picture_is_named_by_the_workers_of_an_evaluation(
    train_net, own_scenes, tmp_path
):
    out = tmp_path / "out"
    assert train_net(*voc_arguments(own_scenes, out, "DATASETS.TEST", "()"))[0] == 0
    broken = truncate(picture(own_scenes, "test"))
    opts = ("DATALOADER.NUM_WORKERS", 2, "MODEL.WEIGHTS", out / "model_final.pth")
    args = voc_arguments(own_scenes, out, *opts, flags=["--eval-only"])
    assert says(train_net(*args), str(broken))


def test_truncated_pictures_are_skipped_on_demand(train_net, own_scenes, tmp_path):
    broken = [truncate(picture(own_scenes, split)) for split in ("trainval", "test")]
    opts = ("INPUT.SKIP_UNREADABLE", True, "SOLVER.IMS_PER_BATCH", 8)
    status, out, err = train_net(*voc_arguments(own_scenes, tmp_path / "out", *opts))
    assert (status, err) == (0, "")
    for path in broken:
        assert f"Skipped: Image {path} cannot be decoded" in out
    report = json.loads((tmp_path / "out" / "voc_results.json").read_text())
    assert report["num_images"] == len(split_ids(own_scenes, "test")) - 1


def test_label_of_no_class_is_named(train_net, own_scenes, tmp_path):
    name = split_ids(own_scenes, "trainval")[0]
    label = write_label(own_scenes / "SegmentationClass" / f"{name}.png", [[9] * 128] * 128)
    opts = ("MODEL.SEG_REGULARIZER_ON", True, "SOLVER.IMS_PER_BATCH", 8)
    args = voc_arguments(own_scenes, tmp_path / "out", *opts)
    assert says(train_net(*args), str(label), "id(s) 9")


def test_broken_annotation_is_named(train_net, own_scenes, tmp_path):
    path = own_scenes / "Annotations" / f"{split_ids(own_scenes, 'test')[0]}.xml"
    path.write_text("<annotation><object>")
    assert says(train_net(*voc_arguments(own_scenes, tmp_path / "out")), str(path))


def test_one_picture_is_enough(train_net, own_scenes, tmp_path):
    name = split_ids(own_scenes, "trainval")[0]
    (own_scenes / "ImageSets/Main/trainval.txt").write_text(name)
    args = voc_arguments(own_scenes, tmp_path / "out", "SOLVER.IMS_PER_BATCH", 3)
    assert train_net(*args)[0] == 0


def test_pictures_without_boxes(train_net, own_scenes, tmp_path):
    for name in split_ids(own_scenes, "trainval"):
        path = own_scenes / "Annotations" / f"{name}.xml"
        path.write_text(annotation_xml([], size=(128, 128)))
    args = voc_arguments(own_scenes, tmp_path / "out")
    assert says(train_net(*args), "DATALOADER.FILTER_EMPTY_ANNOTATIONS False")
    status, _, _ = train_net(*args, "DATALOADER.FILTER_EMPTY_ANNOTATIONS", False)
    assert status == 0 and (tmp_path / "out" / "model_final.pth").is_file()
