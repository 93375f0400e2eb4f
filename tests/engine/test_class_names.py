"""The names of the classes travel with a checkpoint, and other ones are told."""

import logging

import pytest
import torch
from checkpoint_helpers import make
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import DatasetCatalog, MetadataCatalog
from torch import nn
from trainer_helpers import make_config, run

from ion_d2.engine.checkpoint import IONCheckpointer
from ion_d2.engine.class_names import (
    KEY,
    check_classes,
    classes_of,
    dataset_classes,
    difference,
    name_classes,
    names_in,
    read_class_names,
)
from ion_d2.engine.trainer import IONTrainer
from ion_d2.engine.training_parts import IONBuilders
from ion_d2.errors import IONError

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"
TRAINED = ["cat", "dog"]
# Other classes than TRAINED, and what a message says of them.
OTHER = [
    (["dog", "cat"], "another order.*'cat' in it, and 'dog' here"),
    (["cat", "dog", "bird"], r"other classes \('cat', 'dog'\), without 'bird'"),
    (["cat"], "with 'dog', which the data here does not have"),
    (["cat", "hound"], "without 'hound' and with 'dog'"),
    (["Cat", "dog"], "without 'Cat' and with 'cat'"),
    ([str(i) for i in range(20)], "'0', '1', '2', '3', '4', ... .20 in all."),
]


@pytest.mark.parametrize("ours", [TRAINED, tuple(TRAINED), None])
def test_equal_or_unknown_classes_pass(ours):
    check_classes(TRAINED, ours, "a.pth")
    check_classes(ours, TRAINED, "a.pth")


def test_unicode_forms_are_one_name():
    assert COMPOSED != DECOMPOSED and difference([COMPOSED], [DECOMPOSED]) == ""


@pytest.mark.parametrize("held", [None, [], {0: "cat"}, [1, 2], "cat", torch.zeros(2)])
def test_what_else_a_file_holds_under_the_key_tells_nothing(tmp_path, held):
    assert names_in({KEY: held}) is None
    torch.save({"model": nn.Linear(4, 4).state_dict(), KEY: held}, tmp_path / "a.pth")
    make(classes=TRAINED).load_complete(str(tmp_path / "a.pth"))
    assert read_class_names(str(tmp_path / "a.pth")) is None


@pytest.mark.parametrize("weights", ["", "gone.pth", "model.pkl", "https://no.such.host/a.pkl"])
def test_what_is_no_checkpoint_of_ours_tells_nothing(weights):
    assert read_class_names(weights) is None


def test_names_in_pytorchs_old_format_are_read(tmp_path):
    path = tmp_path / "old.pth"
    torch.save({"model": {}, KEY: TRAINED}, path, _use_new_zipfile_serialization=False)
    assert read_class_names(str(path)) == TRAINED


@pytest.fixture
def saved(tmp_path):
    """A checkpoint of TRAINED with its training state, and one of weights alone."""
    checkpointer = make(tmp_path, classes=TRAINED, trainer=nn.Linear(1, 1))
    checkpointer.save("whole", iteration=3)
    checkpointer.save_weights("weights", nn.Linear(4, 4))
    return tmp_path


@pytest.mark.parametrize("name", ["whole", "weights"])
def test_any_program_reads_the_file_and_its_names(saved, name):
    path = str(saved / f"{name}.pth")
    assert torch.load(path, weights_only=True)[KEY] == TRAINED == read_class_names(path)
    assert DetectionCheckpointer(nn.Linear(4, 4)).load(path)[KEY] == TRAINED
    model = nn.Linear(4, 4)
    IONCheckpointer(model, str(saved)).load(path)
    assert classes_of(model) == TRAINED
    IONCheckpointer(model, str(saved)).save_weights("again", model)
    assert read_class_names(str(saved / "again.pth")) == TRAINED


@pytest.mark.parametrize(("ours", "words"), OTHER)
def test_a_start_warns_and_all_else_is_refused(saved, caplog, ours, words):
    states = {"trainer": nn.Linear(1, 1)}
    with caplog.at_level(logging.WARNING):
        make(classes=ours, **states).load(str(saved / "weights.pth"), checkpointables=[])
    assert "weights.pth was trained on" in caplog.text
    with pytest.raises(IONError, match=words):
        make(classes=ours).load_complete(str(saved / "weights.pth"))
    with pytest.raises(IONError, match=f"whole.pth was trained on .*{words}"):
        make(saved, classes=ours, **states).resume_or_load("", resume=True)


def test_names_are_told_before_the_sizes_of_tensors(saved):
    with pytest.raises(IONError, match="was trained on other classes"):
        make(size=5, classes=["a"]).load_complete(str(saved / "weights.pth"))


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_a_training_writes_them_and_is_tested_with_no_others(
    scenes, tmp_path, catalogs, monkeypatch, decay
):
    evaluated = []
    monkeypatch.setattr(IONBuilders.__mro__[1], "test", lambda *args: evaluated.append(1) or {})
    opts = ("SOLVER.MAX_ITER", 2, "SOLVER.EMA_DECAY", decay, "SOLVER.CHECKPOINT_PERIOD", 1)
    cfg = make_config(scenes, tmp_path, *opts, "TEST.BEST_METRIC", "bbox/AP")
    monkeypatch.setattr(
        IONTrainer, "evaluate", lambda self: setattr(self, "last_results", {"bbox": {"AP": 1.0}})
    )
    model = run(cfg).model
    classes = dataset_classes(cfg.DATASETS.TRAIN)
    names = ("model_0000000", "model_0000001", "model_best", "model_final")
    assert {path.stem for path in tmp_path.glob("*.pth")} == set(names)
    for name in names:
        held = torch.load(tmp_path / f"{name}.pth", weights_only=True)
        assert held[KEY] == classes == ["cross", "triangle"]
    IONTrainer.test(cfg, model)
    DatasetCatalog.register("swapped", lambda: [])
    MetadataCatalog.get("swapped").thing_classes = classes[::-1]
    swapped = cfg.clone()
    swapped.defrost()
    swapped.DATASETS.TEST = ("swapped",)
    with pytest.raises(IONError, match="model was trained on another order.*'cross'.*'triangle'"):
        IONTrainer.test(swapped, model)
    assert len(evaluated) == 1
    name_classes(model, None)  # one that nobody told its classes
    IONTrainer.test(swapped, model)
    assert len(evaluated) == 2
