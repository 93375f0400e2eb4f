"""Two processes train in stages, each in passes of one image, as one process would alone."""

import pytest
import torch
from detectron2.engine import HookBase
from model_helpers import small_config
from process_helpers import in_two_processes
from torch.nn.parallel import DistributedDataParallel
from trainer_helpers import Record, run

from ion_d2.data.catalog import ensure_registered
from ion_d2.engine.steps import unwrap_distributed

pytestmark = pytest.mark.slow

STEPS = 6
# Freezing, waking and freezing again, across the wrapper for distributed training.
STAGES = (
    "[{'MAX_ITER': 2, 'FREEZE_AT': 5, 'BASE_LR': 0.02, 'END_LR': 0.01},"
    " {'MAX_ITER': 2, 'FREEZE_AT': 0, 'BASE_LR': 0.03},"
    " {'MAX_ITER': 2, 'FREEZE_AT': 3, 'BASE_LR': 0.02}]"
)
FROZEN = [5, 5, 0, 0, 3, 3]
# Nothing random but the weights' start: every candidate is sampled, nothing is dropped.
OPTIONS = [
    "SOLVER.STAGES", STAGES, "SOLVER.IMS_PER_BATCH", 4, "SOLVER.IMS_PER_PASS", 1,
    "MODEL.DROPOUT_ON", False, "MODEL.SKIP_POOLER.SCALE_INIT", 10.0, "DATASETS.TEST", "()",
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE", 2000, "MODEL.RPN.POSITIVE_FRACTION", 1.0,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 2000, "MODEL.ROI_HEADS.POSITIVE_FRACTION", 1.0,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN", 20, "INPUT.MIN_SIZE_TRAIN", "(64,)",
    "MODEL.ROI_HEADS.NUM_CLASSES", 2, "SOLVER.CHECKPOINT_PERIOD", 100,
]  # fmt: skip


class Exchanges(HookBase):
    """Notes in which passes the processes would exchange their gradients."""

    def __init__(self):
        self.seen = []

    def before_train(self):
        unwrap_distributed(self.trainer.model).register_forward_pre_hook(self.note)

    def note(self, module, inputs):
        assert len(inputs[0]) == 1
        self.seen.append(getattr(self.trainer.model, "require_backward_grad_sync", None))


def train(scenes, output, seed):
    name = f"voc:{scenes}:trainval"
    ensure_registered([name])
    cfg = small_config(*OPTIONS, "DATASETS.TRAIN", f"('{name}',)", "OUTPUT_DIR", output)
    record, exchanges = Record(), Exchanges()
    model = run(cfg, record, exchanges, seed=seed).model
    return {
        "state": unwrap_distributed(model).state_dict(), "moved": list(record.moved.values()),
        "losses": [losses["total_loss"] for losses in record.losses.values() if losses],
        "exchanges": exchanges.seen, "wrapped": isinstance(model, DistributedDataParallel),
    }  # fmt: skip


def work(rank, scenes, output):
    # The processes start from different weights, as default_setup has it: the first one's count.
    return train(scenes, output, seed=rank)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, scenes):
    """What each of two processes and one alone ended with."""
    folder = tmp_path_factory.mktemp("processes")
    pair = in_two_processes(work, folder, str(scenes), f"{folder}/out")
    return (*pair, train(scenes, f"{folder}/alone", seed=0))


def test_processes_stay_together_through_the_stages(outcomes):
    first, second, alone = outcomes
    assert first["wrapped"] and second["wrapped"] and not alone["wrapped"]
    for name, value in first["state"].items():
        assert torch.equal(value, second["state"][name]), name


def test_they_end_where_one_process_ends(outcomes):
    first, _, alone = outcomes
    assert first["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert len(first["losses"]) == STEPS
    for name, value in alone["state"].items():
        torch.testing.assert_close(first["state"][name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_each_stage_trains_its_parameters_in_every_process(outcomes):
    for outcome in outcomes:
        names = set(outcome["state"]) & set().union(*outcome["moved"])
        blocks = {n: int(n.split("bottom_up.conv")[1][0]) for n in names if "bottom_up" in n}
        assert set(blocks.values()) == {1, 2, 3, 4, 5}
        expected = [{n for n in names if blocks.get(n, 9) > frozen} for frozen in FROZEN]
        assert outcome["moved"] == expected


def test_gradients_are_exchanged_once_a_step(outcomes):
    for outcome in outcomes[:2]:
        assert outcome["exchanges"] == [False, True] * STEPS
    assert outcomes[2]["exchanges"] == [None] * 4 * STEPS
