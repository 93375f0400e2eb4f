"""``TEST.PRECISE_BN``: batch normalization's statistics, measured with the weights of one step."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.engine.hooks import PreciseBN
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

from ..errors import IONError
from ..modeling import BatchRenorm2d


def check_measured(cfg: CfgNode, model: nn.Module) -> None:
    """Raise ``IONError`` if ``TEST.PRECISE_BN`` is on and no batch normalization trains."""
    layers = get_bn_modules(model)
    if cfg.TEST.PRECISE_BN.ENABLED and all(isinstance(it, BatchRenorm2d) for it in layers):
        raise IONError(
            "TEST.PRECISE_BN.ENABLED is True, but the model has no batch normalization to measure: "
            "GroupNorm has no statistics, frozen layers and batch renormalization (BRN) keep their "
            "own; set it to False."
        )


class RepeatedPreciseBN(PreciseBN):
    """Detectron2's hook, which always measures on the same batches.

    Detectron2's reads on from one measurement to the next, from where no resumed run could know.
    This one leaves batch renormalization out, whose running statistics are those that the weights
    were trained with: measured ones make the model worse, and Detectron2's way of measuring, by
    training passes, ruins it.
    """

    def __init__(self, hook: PreciseBN) -> None:
        super().__init__(hook._period, hook._model, hook._data_loader, hook._num_iter)

    def update_stats(self) -> None:
        """Measure, from the loader's first batch on."""
        self._data_iter = None
        self._data_loader.seed = self.trainer.cfg.SEED  # one that was drawn is known by now
        layers = get_bn_modules(self._model)
        left_out = [layer.eval() for layer in layers if isinstance(layer, BatchRenorm2d)]
        super().update_stats()
        for layer in left_out:
            layer.train()
