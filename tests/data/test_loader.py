"""The training stream: the same batches however it is cut, shared or parallelised."""

import itertools
import os
import random

import numpy as np
import pytest
import torch

from ion_d2.data.loader import ResumableLoader, SingleImageLoader, _raising_errors
from ion_d2.errors import IONError


class Mapper:
    """Returns the index and random numbers of every generator that augmentations draw from."""

    def __call__(self, d):
        if d.get("broken"):
            raise IONError("image 3 is broken")
        if d.get("skip"):
            return None
        return d["i"], random.random(), np.random.rand(), torch.rand(1).item()


def make(dicts=None, count=7, **kwargs):
    dicts = dicts or [{"i": i, "width": 10 + i % 2, "height": 10} for i in range(count)]
    settings = {"batch_size": 2, "seed": 5, "group_by_aspect": False, **kwargs}
    return ResumableLoader(dicts, Mapper(), **settings)


def take(loader, count, first=0):
    loader.first_iteration = first
    return list(itertools.islice(loader, count))


@pytest.mark.parametrize("grouped", [False, True])
def test_starting_later_continues_the_same_stream(grouped):
    whole = take(make(group_by_aspect=grouped), 12)
    assert take(make(group_by_aspect=grouped), 7, first=5) == whole[5:]


def test_workers_do_not_change_the_stream():
    assert take(make(num_workers=2), 9) == take(make(), 9)


def test_seeds_change_the_stream():
    assert take(make(seed=6), 4) != take(make(), 4)


def test_each_pass_shows_every_image_once_in_a_new_order():
    indices = [item[0] for batch in take(make(count=8), 8) for item in batch]
    first, second = indices[:8], indices[8:]
    assert sorted(first) == sorted(second) == list(range(8)) and first != second


def test_augmentation_differs_between_passes():
    items = [item for batch in take(make(count=2), 4) for item in batch]
    assert len({item[1] for item in items}) == len(items)


def test_processes_share_the_stream_out():
    alone = [item for batch in take(make(batch_size=4), 3) for item in batch]
    parts = [take(make(rank=r, world_size=2), 3) for r in range(2)]
    together = [item for a, b in zip(*parts) for item in itertools.chain(*zip(a, b))]
    assert together == alone


def test_batches_hold_one_orientation():
    for batch in take(make(group_by_aspect=True), 10):
        assert len({item[0] % 2 for item in batch}) == 1


def test_loading_leaves_the_programs_random_numbers_alone():
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    expected = torch.rand(1).item(), random.random(), np.random.rand()
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    take(make(), 3)
    assert (torch.rand(1).item(), random.random(), np.random.rand()) == expected


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_arrives_as_it_was_raised(workers):
    dicts = [{"i": 0, "width": 1, "height": 1, "broken": True}]
    for loader in (make(dicts, num_workers=workers), SingleImageLoader(dicts, Mapper(), workers)):
        with pytest.raises(IONError) as error:
            next(iter(loader))
        assert str(error.value) == "image 3 is broken"


@pytest.mark.parametrize("error", [ConnectionResetError, EOFError, FileNotFoundError])
@pytest.mark.parametrize(
    ("text", "workers", "raised"),
    [
        ("Connection reset by peer", 2, RuntimeError),  # a worker was killed as it sent something
        ("Caught it in DataLoader worker process 0.", 2, None),
        ("a mapper's", 0, None),
    ],
)
def test_a_connection_that_breaks_is_told_as_a_lost_worker(error, text, workers, raised):
    class Breaking:
        num_workers = workers

        def __iter__(self):
            yield [1]
            raise error(text)

    batches = _raising_errors(Breaking())
    assert next(batches) == [1]
    with pytest.raises(raised or error, match="DataLoader worker ended" if raised else text):
        next(batches)


def test_single_images_come_once():
    loader = SingleImageLoader([{"i": 0}, {"i": 1}], Mapper(), 0)
    assert [batch[0][0] for batch in loader] == [0, 1] and len(loader) == 2


def test_items_left_out_are_replaced_by_the_next():
    dicts = [{"i": i, "width": 1, "height": 1, "skip": i == 1} for i in range(3)]
    seen = {item[0] for batch in take(make(dicts), 6) for item in batch}
    assert seen == {0, 2}
    with pytest.raises(IONError, match="No image"):
        take(make([{"i": 0, "width": 1, "height": 1, "skip": True}]), 1)


def test_no_images():
    with pytest.raises(IONError, match="training set is empty"):
        ResumableLoader([], Mapper(), batch_size=1, seed=0)


@pytest.mark.skipif(not hasattr(os, "setpgrp"), reason="no process groups on this system")
def test_a_signal_to_the_programs_group_does_not_reach_the_workers():
    dicts = [{"width": 1, "height": 1}]
    training = ResumableLoader(dicts, process_group, batch_size=1, seed=0, num_workers=1)
    for loader in (training, SingleImageLoader(dicts, process_group, 1)):
        (group,) = next(iter(loader))
        assert group != os.getpgrp()


def process_group(item):
    return os.getpgrp()
