"""The staged recipe, scaled down, from converted VGG weights: cut anywhere, it ends the same.

Runs on synthetic scenes, and on real photographs where they are at hand.
"""

import pytest
import torch
import torchvision
from model_helpers import SMALL
from trainer_helpers import Record, assert_same, run

from ion_d2.data.catalog import ensure_registered
from ion_d2.engine.hooks import TrainingInterrupted
from ion_d2.engine.setup import load_config

pytestmark = pytest.mark.slow

# The rates of configs/ion_vgg16_voc.yaml, three steps a stage.
STAGES = (
    "[{'MAX_ITER': 3, 'FREEZE_AT': 5, 'BASE_LR': 0.005, 'END_LR': 0.0001},"
    " {'MAX_ITER': 3, 'FREEZE_AT': 2, 'BASE_LR': 0.001, 'END_LR': 0.00001}]"
)
RATES = [5e-3 * 0.02 ** (i / 3) for i in range(3)] + [1e-3 * 0.01 ** (i / 3) for i in range(3)]


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    """A torchvision VGG11 with random weights; its classifier is left out for its size."""
    torch.manual_seed(7)
    vgg = torchvision.models.vgg11(weights=None, init_weights=False)
    path = tmp_path_factory.mktemp("weights") / "vgg11.pth"
    torch.save({k: v for k, v in vgg.state_dict().items() if "features" in k}, path)
    return path


def make_config(folder, output, vgg_file, classes):
    name = f"voc:{folder}:trainval"
    ensure_registered([name])
    opts = [
        "MODEL.WEIGHTS", vgg_file, "MODEL.VGG.DEPTH", 11, "MODEL.VGG.WIDTH_MULTIPLIER", 1.0,
        "MODEL.ROI_HEADS.NUM_CLASSES", classes, "DATASETS.TRAIN", f"('{name}',)",
        "DATASETS.TEST", "()", "OUTPUT_DIR", output, "SOLVER.STAGES", STAGES,
        "SOLVER.CHECKPOINT_PERIOD", 100, "SOLVER.IMS_PER_BATCH", 2, "INPUT.MIN_SIZE_TRAIN", "(64,)",
        "DATALOADER.NUM_WORKERS", 0, "MODEL.RPN.POST_NMS_TOPK_TRAIN", 100,
    ]  # fmt: skip
    return load_config("configs/ion_vgg16_voc.yaml", [*SMALL, *map(str, opts)])


def check_recipe(folder, tmp_path, vgg_file, classes, cuts):
    whole = Record()
    expected = run(make_config(folder, tmp_path / "whole", vgg_file, classes), whole)
    expected = expected.model.state_dict()
    check_start(whole.start, vgg_file)
    check_movements(whole, set(whole.start))
    for cut in cuts:
        cfg = make_config(folder, tmp_path / str(cut), vgg_file, classes)
        with pytest.raises(TrainingInterrupted, match=f"iteration {cut}"):
            run(cfg, Record(interrupt_at=cut))
        resumed = Record()
        state = run(cfg, resumed, resume=True).model.state_dict()
        assert sorted(resumed.moved) == list(range(cut + 1, 6))
        assert resumed.rates.items() <= whole.rates.items()
        assert resumed.moved.items() <= whole.moved.items()
        assert_same(state, expected)


def check_start(start, vgg_file):
    loaded = torch.load(vgg_file)
    assert torch.equal(start["backbone.bottom_up.conv1_1.weight"], loaded["features.0.weight"])
    assert torch.equal(start["backbone.bottom_up.conv5_2.bias"], loaded["features.18.bias"])


def check_movements(record, names):
    """All but the convolutions train in stage 1, in stage 2 those from the third block on too."""
    vgg = {n for n in names if n.startswith("backbone.bottom_up.conv")}
    low = {n for n in vgg if n.split(".conv")[1][0] in "12"}
    assert len(vgg) == 16 and len(low) == 4
    for iteration, moved in record.moved.items():
        assert moved == names - (vgg if iteration < 3 else low)
    assert list(record.rates.values()) == pytest.approx(RATES, rel=1e-9)


def test_scenes(scenes, tmp_path, vgg_file):
    """Cut within stage 1, after its last step, and within stage 2."""
    check_recipe(scenes, tmp_path, vgg_file, classes=2, cuts=(0, 2, 4))


def test_blood_cells(real_data, tmp_path, vgg_file):
    check_recipe(real_data / "bccd" / "VOC2007", tmp_path, vgg_file, classes=3, cuts=(1, 4))
