#!/usr/bin/env python
"""Train or evaluate ION, or any other Detectron2 config, from a YAML file.

python train_net.py --config-file configs/ion_vgg16_voc.yaml
python train_net.py --config-file configs/ion_vgg16_voc.yaml --eval-only MODEL.WEIGHTS model.pth
torchrun --nproc_per_node 2 train_net.py --config-file configs/ion_vgg16_voc.yaml
"""

from __future__ import annotations

import argparse
import functools
import logging
import sys
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup, launch
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch import nn
from torch.multiprocessing import ProcessExitedException

from ion_d2.engine.checkpoint import IONCheckpointer
from ion_d2.engine.class_names import dataset_classes
from ion_d2.engine.config_file import find_config
from ion_d2.engine.distributed import join, leave, read_place
from ion_d2.engine.expected import check_expected, verify
from ion_d2.engine.fit_config import settle_data
from ion_d2.engine.folder_lock import claim
from ion_d2.engine.hooks import TrainingInterrupted, exit_undisturbed
from ion_d2.engine.run_folder import config_stays, write_config
from ion_d2.engine.setup import hide_expected_tracebacks, load_config, run_cli
from ion_d2.errors import IONError
from ion_lab.report.reporting_trainer import ReportingTrainer

sys.path.append(str(Path(__file__).resolve().parent / "tools"))

from run_end import describe_end  # noqa: E402


def setup(args: argparse.Namespace) -> CfgNode:
    """Read the config, meet the other processes, register the datasets, set up logs and seeds."""
    cfg = load_config(args.config_file, args.opts)
    if args.eval_only and args.resume:
        _take_last_checkpoint(cfg)
    place = read_place()
    if place is not None:
        join(place, cfg)
    settle_data(cfg, train=not args.eval_only)
    try:
        if not args.eval_only:
            claim(cfg.OUTPUT_DIR)
        with config_stays(cfg.OUTPUT_DIR):
            # It logs the file, which "model_zoo:NAME" is not.
            file = find_config(args.config_file)
            default_setup(cfg, argparse.Namespace(**{**vars(args), "config_file": file}))
        for package in ("ion_d2", "ion_lab"):
            setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name=package)
    except OSError as error:
        raise IONError(
            f"OUTPUT_DIR {cfg.OUTPUT_DIR!r} cannot be written ({error.strerror}); choose another "
            "folder, or free space there."
        ) from error
    hide_expected_tracebacks()
    logging.getLogger("ion_d2").info("Running on %s", cfg.MODEL.DEVICE)
    return cfg


def _take_last_checkpoint(cfg: CfgNode) -> None:
    """Evaluate the last checkpoint of OUTPUT_DIR, if there is one, as Detectron2's program does."""
    last = IONCheckpointer(nn.Module(), cfg.OUTPUT_DIR)
    if last.has_checkpoint():
        cfg.defrost()
        cfg.MODEL.WEIGHTS = last.get_checkpoint_file()
        cfg.freeze()


def main(args: argparse.Namespace) -> None:
    """Train or evaluate in this process."""
    cfg = setup(args)
    if args.eval_only:
        evaluate(cfg)
    else:
        train(cfg, args.resume)
    if comm.is_main_process():
        logging.getLogger("ion_d2").info("%s", describe_end(cfg, trained=not args.eval_only))
    leave()


def train(cfg: CfgNode, resume: bool) -> None:
    """Train, or end the program as a signal asks for."""
    trainer = ReportingTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    try:
        trainer.train()
    except TrainingInterrupted as stop:
        exit_undisturbed()
        if comm.is_main_process():
            sys.stderr.write(f"{stop} Run the same command with --resume to continue.\n")
        sys.exit(stop.exit_status)


def evaluate(cfg: CfgNode) -> None:
    """Evaluate ``MODEL.WEIGHTS`` on ``DATASETS.TEST``.

    Raises:
        IONError: no weights are given, or they are of another model.
    """
    if not cfg.MODEL.WEIGHTS:
        raise IONError("--eval-only needs weights: add MODEL.WEIGHTS path/to/model_final.pth.")
    check_expected(cfg)
    model = ReportingTrainer.build_model(cfg)
    classes = dataset_classes(cfg.DATASETS.TEST)
    IONCheckpointer(model, classes=classes).load_complete(cfg.MODEL.WEIGHTS)
    results = ReportingTrainer.test(cfg, model)
    write_config(cfg, evaluated=True)
    ReportingTrainer.report(cfg, model)
    verify(cfg, results)


def process(args: argparse.Namespace) -> NoReturn:
    """Be one of the processes, and exit with its status."""
    run_cli(functools.partial(main, args))


def _parse(argv: list) -> argparse.Namespace:
    parser = default_argument_parser(epilog=__doc__)
    parser.set_defaults(num_gpus=min(1, torch.cuda.device_count()))
    args = parser.parse_args(argv)
    if not args.config_file:
        parser.error("--config-file is required, for instance configs/ion_vgg16_voc.yaml")
    return args


def cli() -> None:
    """Parse the command line and start one process per GPU, unless torchrun has started them.

    Raises:
        IONError: the processes asked for cannot be started.
    """
    args = _parse(sys.argv[1:])
    _check_processes(args)
    if read_place() is not None:
        process(args)  # does not return
    options = {}
    if args.num_gpus * args.num_machines > 1:
        cfg = load_config(args.config_file, args.opts)
        options["timeout"] = timedelta(seconds=cfg.DISTRIBUTED.TIMEOUT)
    try:
        launch(
            process,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
            **options,
        )
    except ProcessExitedException as error:
        if error.signal_name is not None:
            raise IONError(
                f"Process {error.error_index} was ended by {error.signal_name} and the others with "
                "it; go on from the last checkpoint with --resume."
            ) from error
        sys.exit(error.exit_code)  # it has said why


def _check_processes(args: argparse.Namespace) -> None:
    available = torch.cuda.device_count()
    if read_place() is not None and (args.num_gpus > 1 or args.num_machines > 1):
        raise IONError(
            "torchrun has started the processes already; leave out --num-gpus and --num-machines."
        )
    if args.num_machines > 1 and not available:
        raise IONError(
            f"--num-machines is {args.num_machines}, but this machine has no GPU; start processes "
            "on CPUs with torchrun."
        )
    if args.num_gpus > max(available, 1):
        raise IONError(
            f"--num-gpus is {args.num_gpus}, but this machine has {available} GPUs; start several "
            "processes on CPUs with torchrun."
        )


if __name__ == "__main__":
    run_cli(cli)
