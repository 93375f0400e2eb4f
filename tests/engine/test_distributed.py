"""Two processes on CPUs, met as torchrun has them: places, gradients, and a silent partner."""

import os
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from model_helpers import EXACT, make_input, small_config, small_model
from process_helpers import free_port
from torch import distributed, multiprocessing

from ion_d2.engine.best import KeepBest, PatienceExhausted
from ion_d2.engine.checkpoint import IONCheckpointer
from ion_d2.engine.distributed import check_devices, join, leave, read_place, tell_lost
from ion_d2.engine.finite import check_losses
from ion_d2.engine.steps import accumulate_gradients, share_buffers, wrap_distributed
from ion_d2.errors import IONError

pytestmark = pytest.mark.slow

PLACE = {
    "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "localhost", "MASTER_PORT": "1",
}  # fmt: skip


def batch(labeled):
    """Four images of one size; label maps for some of them."""
    return [
        make_input(64, 96, labels=i in labeled, boxes=boxes, seed=i)
        for i, boxes in enumerate((2, 1, 2, 1))
    ]


# All have labels; only the second process' images have; nobody's have.
LABELED = ((0, 1, 2, 3), (2,), ())

# Batch renormalization of the context, which plug_in switches on.
RENORMALIZED = (*EXACT, "MODEL.CONTEXT.NORM", "BRN")


def gradients(model, inputs):
    model.zero_grad()
    with EventStorage():
        accumulate_gradients(model, inputs, 0)
    parameters = getattr(model, "module", model).named_parameters()
    return {name: parameter.grad.clone() for name, parameter in parameters}


def work(rank, folder, port):
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )  # fmt: skip
    cfg = small_config(*EXACT, "DISTRIBUTED.TIMEOUT", 30)
    join(read_place(), cfg)
    told = {"local": (comm.get_local_rank(), comm.get_local_size()), "rank": comm.get_rank()}
    model = wrap_distributed(small_model(*EXACT, seed=rank).train())
    told["gradients"] = [gradients(model, batch(x)[2 * rank : 2 * rank + 2]) for x in LABELED]
    model = wrap_distributed(small_model(*RENORMALIZED, seed=rank).train())
    told["renormalized"] = [gradients(model, batch(x)[2 * rank : 2 * rank + 2]) for x in LABELED]
    told["stopped"] = stop_early(rank, folder)
    shared = torch.nn.BatchNorm1d(2)
    shared.running_mean += rank + 1
    share_buffers(shared)
    told["shared"] = shared.running_mean
    told["diverged"] = [diverge(rank, broken) for broken in (0, 1)]
    told["silence"] = meet_silence(rank)
    torch.save(told, os.path.join(folder, f"{rank}.pth"))
    leave()


def stop_early(rank, folder):
    """The iteration at which early stopping ends a run; only process 0 has the figures."""
    model = torch.nn.Linear(1, 1)
    hook = KeepBest("bbox/AP", 2, 1, IONCheckpointer(model, folder), None)
    results = {"bbox": {"AP": 1.0}} if rank == 0 else {}
    hook.trainer = SimpleNamespace(
        start_iter=0, max_iter=9, last_results=results, evaluated_model=model
    )
    hook.before_train()
    for hook.trainer.iter in range(8):
        try:
            hook.after_step()
        except PatienceExhausted:
            return hook.trainer.iter
    return None


def diverge(rank, broken):
    """What a process is told where the loss of one is infinite."""
    losses = {"loss_cls": torch.tensor(float("inf") if rank == broken else 1.0)}
    try:
        check_losses(losses)
    except FloatingPointError as error:
        return str(error)
    return None


def meet_silence(rank):
    """What process 0 is told when process 1 is too late for a meeting of one second."""
    group = distributed.new_group([0, 1], timeout=timedelta(seconds=1))
    if rank == 1:
        time.sleep(4)
        return None
    try:
        distributed.barrier(group)
    except RuntimeError as error:
        return tell_lost(error)
    return "nothing"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What each of two processes ended with."""
    if not distributed.is_gloo_available():
        pytest.skip("this PyTorch has no gloo")
    folder = str(tmp_path_factory.mktemp("processes"))
    multiprocessing.spawn(work, args=(folder, free_port()), nprocs=2)
    return [torch.load(os.path.join(folder, f"{rank}.pth")) for rank in range(2)]


def assert_near(found, expected):
    """The same gradients, to 1e-5 of the largest."""
    scale = max(value.abs().max() for value in expected.values())
    assert found.keys() == expected.keys()
    assert max((found[n] - g).abs().max() for n, g in expected.items()) < 1e-5 * scale


def test_statistics_are_those_of_the_first_before_an_evaluation(outcomes):
    for outcome in outcomes:
        assert outcome["shared"].tolist() == [1, 1]


@pytest.mark.parametrize("case", range(len(LABELED)))
def test_gradients_are_those_of_one_process_with_the_double_batch(outcomes, case):
    expected = gradients(small_model(*EXACT).train(), batch(LABELED[case]))
    for outcome in outcomes:
        assert_near(outcome["gradients"][case], expected)
    head = [n for n in expected if n.startswith("sem_seg_head")]
    assert head and any(expected[n].any() for n in head) == bool(LABELED[case])
    for name in expected:
        assert torch.equal(outcomes[0]["gradients"][case][name],
                           outcomes[1]["gradients"][case][name]), name  # fmt: skip


def test_so_they_are_with_batch_renormalization(outcomes):
    """In the first batch, which its own statistics standardize, and in later ones."""
    model = small_model(*RENORMALIZED).train()
    for case, labeled in enumerate(LABELED):
        expected = gradients(model, batch(labeled))
        for outcome in outcomes:
            assert_near(outcome["renormalized"][case], expected)


def test_processes_know_their_places(outcomes):
    assert [o["rank"] for o in outcomes] == [0, 1]
    assert [o["local"] for o in outcomes] == [(0, 2), (1, 2)]


def test_all_stop_early_together(outcomes):
    assert [o["stopped"] for o in outcomes] == [2, 2]


def test_all_stop_where_one_diverges(outcomes):
    own = "loss_cls is inf"
    other = "a loss of another process is not finite; its log names the pictures"
    assert [o["diverged"] for o in outcomes] == [[own, other], [other, own]]


def test_silent_partner_is_told(outcomes):
    sentence = outcomes[0]["silence"]
    assert "Process 0 lost another process of the 2" in sentence
    assert "--resume" in sentence and "\n" not in sentence


def test_place_is_read_from_the_variables():
    assert read_place(PLACE) == (3, 4, 1, 2)
    assert read_place({}) is None and read_place({"WORLD_SIZE": "8"}) is None
    alone = {k: v for k, v in PLACE.items() if k != "LOCAL_WORLD_SIZE"}
    assert read_place(alone).local_world_size == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"MASTER_PORT": ""}, "MASTER_PORT is not"),
        ({"RANK": "first"}, "RANK is 'first'"),
        ({"RANK": "4"}, "RANK is '4'"),
        ({"LOCAL_WORLD_SIZE": "3"}, "LOCAL_WORLD_SIZE is '3'"),
    ],
)
def test_wrong_variables(changes, words):
    with pytest.raises(IONError, match=words):
        read_place({**PLACE, **changes})


def test_too_few_devices_and_no_time():
    check_devices(2, 2)
    with pytest.raises(IONError, match="starts 3 processes.*2 GPUs.*MODEL.DEVICE cpu"):
        check_devices(3, 2)
    with pytest.raises(IONError, match="DISTRIBUTED.TIMEOUT is 0"):
        small_config("DISTRIBUTED.TIMEOUT", 0)


def test_other_errors_are_not_taken_for_a_lost_process():
    assert tell_lost(RuntimeError("gloo")) == ""
    of_a_mapper = "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback ..."
    assert tell_lost(RuntimeError(of_a_mapper)) == ""
    assert "NUM_WORKERS" in tell_lost(RuntimeError("DataLoader worker (pid 7) is killed by signal"))
