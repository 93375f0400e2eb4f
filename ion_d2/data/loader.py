"""A training data stream that depends on the seed and the iteration alone.

Whether a run was interrupted and resumed, and how many worker processes load its images, changes
neither which images a step sees nor how they are augmented.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
from collections.abc import Iterator, Sequence
from typing import Any, Callable

import numpy as np
import torch
from detectron2.data import DatasetFromList, build_detection_test_loader
from detectron2.data.build import trivial_batch_collator
from torch.utils.data import DataLoader, Dataset

from ..errors import IONError

# A seed, a stream position and the index of the dataset dict that is there.
Key = tuple[int, int, int]


class ResumableLoader:
    """Endless, seeded training batches, which can start at any iteration.

    The images are shuffled anew in each pass over the dataset. With several processes, each takes
    every ``world_size``-th image of the stream.

    Attributes:
        first_iteration: where the batches begin; it may be set until the first is drawn.
        seed: of order and augmentation; likewise.
    """

    def __init__(
        self,
        dicts: Sequence[dict[str, Any]],
        mapper: Callable[[dict[str, Any]], Any],
        *,
        batch_size: int,
        seed: int,
        num_workers: int = 0,
        group_by_aspect: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """
        Args:
            dicts: Detectron2 dataset dicts.
            mapper: turns one of them into the model's input, or into None to leave it out.
            batch_size: images per batch of this process.
            seed: of order and augmentation; the same in all processes.
            num_workers: worker processes; 0 loads in this one.
            group_by_aspect: whether a batch holds only wide or only tall images, to save padding.
            rank: index of this process.
            world_size: number of processes.

        Raises:
            IONError: there are no images.
        """
        if not dicts:
            raise IONError(
                "The training set is empty: DATASETS.TRAIN has no image with a usable box "
                "(DATALOADER.FILTER_EMPTY_ANNOTATIONS False keeps images without boxes)."
            )
        self.first_iteration = 0
        self.seed = seed
        self._dataset = _Stream(dicts, mapper)
        self._batch_size = batch_size
        self._num_workers = num_workers
        self._wide = [group_by_aspect and d["width"] > d["height"] for d in dicts]
        self._rank, self._world_size = rank, world_size

    def __iter__(self) -> Iterator[list[Any]]:
        """Yield batches from ``first_iteration`` on."""
        loader = DataLoader(
            self._dataset,
            batch_sampler=self._batches(self.first_iteration),
            num_workers=self._num_workers,
            collate_fn=trivial_batch_collator,
            worker_init_fn=ignore_signals,
            # Its own generator: the default one would lend it a number at each start.
            generator=torch.Generator().manual_seed(self.seed),
        )
        yield from _raising_errors(loader)

    def _batches(self, first: int) -> Iterator[list[Key]]:
        """Form batches as they fill, and skip those of earlier iterations."""
        buckets: dict[bool, list[Key]] = {False: [], True: []}
        for key in self._keys():
            bucket = buckets[self._wide[key[-1]]]
            bucket.append(key)
            if len(bucket) == self._batch_size:
                if first == 0:
                    yield list(bucket)
                first = max(first - 1, 0)
                bucket.clear()

    def _keys(self) -> Iterator[Key]:
        size, position = len(self._wide), 0
        while True:
            generator = torch.Generator().manual_seed(self.seed + position // size)
            for index in torch.randperm(size, generator=generator).tolist():
                if position % self._world_size == self._rank:
                    yield self.seed, position, index
                position += 1


class _Stream(Dataset):
    """Maps a key to the mapped dict; its seed and position alone seed the random numbers."""

    def __init__(self, dicts: Sequence[dict[str, Any]], mapper: Callable) -> None:
        # As bytes: the masks of COCO take five times the room as lists, in every worker process.
        self._dicts = DatasetFromList(list(dicts), copy=False, serialize=True)
        self._mapper = mapper

    def __getitem__(self, key: Key) -> Any:
        seed, position, index = key
        with _seeded(seed, position):
            for offset in range(len(self._dicts)):
                dataset_dict = self._dicts[(index + offset) % len(self._dicts)]
                mapped = _map_or_error(self._mapper, dataset_dict)
                if mapped is not None:
                    return mapped
        return IONError("No image of the training set can be read.")


@contextlib.contextmanager
def _seeded(seed: int, position: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's generators for one image, then restore them."""
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    entropy = np.random.SeedSequence([seed, position]).generate_state(1)[0]
    random.seed(int(entropy))
    np.random.seed(entropy)
    torch.random.default_generator.manual_seed(int(entropy))
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.random.set_rng_state(states[2])


class SingleImageLoader:
    """Detectron2's loader of single test images, with errors that arrive as they were raised."""

    def __init__(
        self, dicts: Sequence[dict[str, Any]], mapper: Callable[[Any], Any], num_workers: int
    ) -> None:
        mapper = functools.partial(_map_or_error, mapper)
        self._loader = build_detection_test_loader(dicts, mapper=mapper, num_workers=num_workers)
        self._loader.worker_init_fn = ignore_signals

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[list[Any]]:
        return _raising_errors(self._loader)


def _map_or_error(mapper: Callable[[Any], Any], item: Any) -> Any:
    """Return errors: raised in a worker process, they would arrive with its traceback as text."""
    try:
        return mapper(item)
    except IONError as error:
        return error


def _raising_errors(loader: DataLoader) -> Iterator[list[Any]]:
    """Yield the batches; raise an error that a worker returned, or RuntimeError if one was lost."""
    batches = iter(loader)
    while True:
        try:
            batch = next(batches, None)
        except (ConnectionError, EOFError, FileNotFoundError) as error:
            if not loader.num_workers or "Caught" in str(error):
                raise  # it is of the mapper, which met it
            told = f"DataLoader worker ended while it handed over a batch ({error!r})"
            raise RuntimeError(told) from error
        if batch is None:
            return
        for item in batch:
            if isinstance(item, IONError):
                raise item
        yield batch


def ignore_signals(worker_id: int) -> None:
    """Let Ctrl-C and the like reach the main process only, which stops its workers in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):
        # SIGTERM, which ``timeout`` sends to a whole group, is how the main process ends workers.
        os.setpgrp()
