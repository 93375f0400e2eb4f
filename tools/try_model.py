#!/usr/bin/env python
"""Serve a page on which a trained model can be tried: drop a picture, see what it finds.

    pip install -e '.[web]'
    python tools/try_model.py --config-file output/ion_tiny/config.yaml \\
        MODEL.WEIGHTS output/ion_tiny/model_final.pth

The page is for this machine alone, unless --host says otherwise. Pictures lie in a temporary
folder that goes with the program, and are sent nowhere.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

from demo_inputs import pictures_of
from model_trial import ModelTrial
from shared_arguments import add_model_arguments, positive, read_model_config

from ion_d2.data.run_images import spread_evenly
from ion_d2.engine.predictor import IONPredictor
from ion_d2.engine.setup import run_cli
from ion_d2.errors import IONError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Lowest score that the page's slider reaches; examples at most.
LOWEST_SCORE, MAX_EXAMPLES = 0.05, 24


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_arguments(parser)
    parser.add_argument("--examples", type=Path, help="folder of pictures to offer on the page")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (127.0.0.1: this machine alone)"
    )
    parser.add_argument("--port", type=int, help="port (the first free one from 7860 on)")
    parser.add_argument(
        "--max-megabytes", type=positive, default=20, help="largest file that is taken (20)"
    )
    parser.add_argument(
        "--max-megapixels", type=positive, default=40, help="largest picture that is taken (40)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Load the model and serve the page until Ctrl-C.

    Args:
        argv: the arguments; None takes them from the command line.
    """
    args = build_parser().parse_intermixed_args(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    examples = find_examples(args.examples) if args.examples else []
    with tempfile.TemporaryDirectory(prefix="try_model_") as uploads:
        # Gradio reads these when it is imported: it asks no other machine, and keeps no history.
        os.environ.update(
            GRADIO_ANALYTICS_ENABLED="False", GRADIO_RUN_HISTORY="False", GRADIO_TEMP_DIR=uploads
        )
        try:
            import model_page
        except ImportError as error:
            raise IONError(
                f"The page needs Gradio ({error}); install it with `pip install -e '.[web]'`."
            ) from error
        max_pixels, max_bytes = 1e6 * args.max_megapixels, int(2**20 * args.max_megabytes)
        page = model_page.build(load_trial(args), examples, max_pixels, LOWEST_SCORE)
        if args.host not in LOOPBACK:
            logging.warning("Whoever reaches %s can use the page, without a password.", args.host)
        url = model_page.serve(page, args.host, args.port, max_bytes)
        print(f"Open {url} in a browser; Ctrl-C ends the program.", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # "docker stop" ends it as Ctrl-C
        page.block_thread()


def find_examples(folder: Path) -> list[Path]:
    """Find the pictures of a folder and its subfolders, at most 24, spread over their names.

    Raises:
        IONError: there are none.
    """
    found = pictures_of(folder)
    if not found:
        raise IONError(f"--examples {folder} holds no picture; give a folder that does.")
    return spread_evenly(found, MAX_EXAMPLES)


def load_trial(args: argparse.Namespace) -> ModelTrial:
    """Build the model of the command line, with its weights and the names of its classes.

    Raises:
        IONError: the config or the weights are missing or wrong.
    """
    cfg, names = read_model_config(args, lowest_score=LOWEST_SCORE)
    return ModelTrial(cfg, IONPredictor.from_config(cfg, names), names)


if __name__ == "__main__":
    run_cli(main)
