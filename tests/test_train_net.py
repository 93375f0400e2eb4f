"""train_net.py from the command line: bad input is told in one sentence, with exit status 1."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from cli_helpers import arguments, says, voc_arguments
from voc_folder import annotation_xml, write_label, write_split

pytestmark = pytest.mark.slow

WHOLE_SET = ("SOLVER.IMS_PER_BATCH", 8)  # so that the one step meets every picture


@pytest.fixture
def own_scenes(scenes, tmp_path):
    """A copy of the scenes that a test may damage."""
    return Path(shutil.copytree(scenes, tmp_path / "VOC"))


@pytest.fixture
def train_on(train_net, tmp_path):
    """Runs train_net.py on a folder in VOC layout, with its output in tmp_path/out."""

    def run(folder, *opts, flags=()):
        return train_net(*voc_arguments(folder, tmp_path / "out", *opts, flags=flags))

    return run


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


LABEL_MAPS = ("MODEL.META_ARCHITECTURE", "SemanticSegmentor", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3)
LABEL_MAPS += ("MODEL.ROI_HEADS.NAME", "StandardROIHeads", "DATASETS.TEST", "()")


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (("MODEL.ROI_HEADS.NUM_CLASSES", 5), ("NUM_CLASSES is 5", "has 2 classes", "set it to 2")),
        (("DATASETS.TRAIN", "voc:a:b"), ("DATASETS.TRAIN", "('NAME',)")),
        (("DATASETS.TRAIN", "()"), ("DATASETS.TRAIN names no dataset",)),
        (("MODEL.META_ARCHITECTURE", "IONN"), ("'IONN'", "META_ARCH")),
        (("SOLVER.AMP.ENABLED", True), ("SOLVER.AMP.ENABLED needs a GPU",)),
        (("SOLVER.IMS_PER_PASS", -1), ("SOLVER.IMS_PER_PASS is -1",)),
        (("DATALOADER.NUM_WORKERS", -1), ("DATALOADER.NUM_WORKERS is -1",)),
        (("TEST.NUM_PICTURES", -1), ("TEST.NUM_PICTURES is -1",)),
        (("TEST.VOC_METRIC", "Area"), ('"Area"', "TEST.VOC_METRIC")),
        (("MODEL.META_ARCHITECTURE", "ProposalNetwork"), ("'ProposalNetwork'", "detects nothing")),
        (LABEL_MAPS, ("'SemanticSegmentor'", "label maps")),
        (("TEST.SEM_SEG", True), ("TEST.SEM_SEG is True", "MODEL.SEG_REGULARIZER_ON")),
    ],
    ids=lambda value: f"{value[0]} {value[1]}" if "META" in value[0] else str(value[0]),
)
def test_wrong_settings(train_on, scenes, opts, words):
    assert says(train_on(scenes, *opts), *words)


def test_an_evaluation_needs_weights(train_on, scenes):
    assert says(train_on(scenes, flags=["--eval-only"]), "--eval-only needs weights")


def test_missing_pictures_are_told_before_the_training(train_on, own_scenes, tmp_path):
    (own_scenes / "classes.txt").write_text("cross\ntriangle\n")
    write_split(own_scenes, "test", "gone\n")
    assert says(train_on(own_scenes), "has no picture")
    picture(own_scenes, "trainval").unlink()
    assert says(train_on(own_scenes), "has no picture")
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_model_of_other_classes_is_not_evaluated(train_on, own_scenes, tmp_path):
    assert train_on(own_scenes)[0] == 0
    config, weights = tmp_path / "out" / "config.yaml", tmp_path / "out" / "model_final.pth"
    trained = config.read_text()
    other = Path(shutil.copytree(own_scenes, tmp_path / "other"))
    (other / "classes.txt").write_text("cross\ntriangle\nlamp\n")

    def evaluate():
        return train_on(other, "MODEL.WEIGHTS", weights, flags=["--eval-only"])

    assert says(evaluate(), "model_final.pth was trained on other classes", "'lamp'")
    held = torch.load(weights, weights_only=False)
    del held["class_names"]  # as files of earlier versions have none
    torch.save(held, weights)
    words = ("model_final.pth is not of this model", "(3, 32) there and (4, 32) here")
    assert says(evaluate(), *words)
    wrong = ("MODEL.WEIGHTS", tmp_path / "typo.pth", "MODEL.ROI_BOX_HEAD.FC_DIM", 16)
    for flags in ([], ["--eval-only"]):  # what is refused leaves no config in the folder
        assert says(train_on(own_scenes, *wrong, flags=flags), "typo.pth is not a file")
    assert config.read_text() == trained
    assert not (config.parent / "config_eval.yaml").exists()


def test_more_gpus_than_there_are(train_on, scenes, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for flag, words in (("--num-gpus", "has 0 GPUs"), ("--num-machines", "is 7, but this machine")):
        assert says(train_on(scenes, flags=[flag, "7"]), flag, words, "torchrun")


def test_output_folder_that_is_a_file(train_net, scenes, tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        assert says(train_net(*voc_arguments(scenes, place)), "OUTPUT_DIR", str(place))


def test_checkpoint_to_resume_from_is_gone(train_on, scenes, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "last_checkpoint").write_text("model_0000099.pth")
    assert says(train_on(scenes, flags=["--resume"]), "last_checkpoint", "model_0000099.pth")


@pytest.mark.parametrize(("split", "workers"), [("trainval", 0), ("trainval", 2), ("test", 0)])
def test_truncated_picture_is_named(train_on, own_scenes, tmp_path, split, workers):
    broken = truncate(picture(own_scenes, split))
    result = train_on(own_scenes, *WHOLE_SET, "DATALOADER.NUM_WORKERS", workers)
    assert says(result, str(broken), "INPUT.SKIP_UNREADABLE True")
    # What was reached before stays.
    assert (tmp_path / "out" / "model_final.pth").exists() == (split == "test")


def test_truncated_picture_is_named_by_the_workers_of_an_evaluation(train_on, own_scenes, tmp_path):
    assert train_on(own_scenes, "DATASETS.TEST", "()")[0] == 0
    broken = truncate(picture(own_scenes, "test"))
    opts = ("DATALOADER.NUM_WORKERS", 2, "MODEL.WEIGHTS", tmp_path / "out" / "model_final.pth")
    assert says(train_on(own_scenes, *opts, flags=["--eval-only"]), str(broken))


def test_truncated_pictures_are_skipped_on_demand(train_on, own_scenes, tmp_path):
    broken = [truncate(picture(own_scenes, split)) for split in ("trainval", "test")]
    status, out, err = train_on(own_scenes, *WHOLE_SET, "INPUT.SKIP_UNREADABLE", True)
    assert (status, err) == (0, "")
    for path in broken:
        assert f"Skipped: Image {path} cannot be decoded" in out
    report = json.loads((tmp_path / "out" / "voc_results.json").read_text())
    assert report["num_images"] == len(split_ids(own_scenes, "test")) - 1


def test_label_of_no_class_is_named(train_on, own_scenes):
    name = split_ids(own_scenes, "trainval")[0]
    label = write_label(own_scenes / "SegmentationClass" / f"{name}.png", [[9] * 128] * 128)
    result = train_on(own_scenes, *WHOLE_SET, "MODEL.SEG_REGULARIZER_ON", True)
    assert says(result, str(label), "id(s) 9")


def test_one_picture_is_enough(train_on, own_scenes):
    write_split(own_scenes, "trainval", split_ids(own_scenes, "trainval")[0])
    assert train_on(own_scenes, "SOLVER.IMS_PER_BATCH", 3)[0] == 0


def test_pictures_without_boxes(train_on, own_scenes, tmp_path):
    for name in split_ids(own_scenes, "trainval"):
        path = own_scenes / "Annotations" / f"{name}.xml"
        path.write_text(annotation_xml([], size=(128, 128)))
    wanted = "An image needs a box", "DATALOADER.FILTER_EMPTY_ANNOTATIONS False"
    assert says(train_on(own_scenes), *wanted)
    assert train_on(own_scenes, "DATALOADER.FILTER_EMPTY_ANNOTATIONS", False)[0] == 0
    assert (tmp_path / "out" / "model_final.pth").is_file()
