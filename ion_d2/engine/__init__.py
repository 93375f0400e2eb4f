"""Training, checkpoints and prediction, and what the command-line programs share."""

from .checkpoint import IONCheckpointer
from .fit_config import settle_classes, settle_data
from .predictor import IONPredictor
from .setup import build_model, load_config, run_cli
from .trainer import IONTrainer

__all__ = [
    "IONCheckpointer",
    "IONPredictor",
    "IONTrainer",
    "build_model",
    "load_config",
    "run_cli",
    "settle_classes",
    "settle_data",
]
