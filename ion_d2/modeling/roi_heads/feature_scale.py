"""The per-channel scale after L2 normalization, and how its start is found (paper sec. 3.1)."""

from __future__ import annotations

import logging
from typing import Any

import torch
from detectron2.utils import comm
from torch import Tensor, nn

from ...layers.l2_norm import mean_l2_norm

logger = logging.getLogger(__name__)


class FeatureScale(nn.Module):
    """A factor per channel after the L2 normalization; all start at one common value.

    That value gives the normalized features the amplitude that the next layers were made for. The
    paper measured 1000, the mean L2 norm of pooled conv5 in Caffe's VGG16. With ``init`` 0 the same
    measurement is made over the first training batches.
    """

    def __init__(self, channels: int, init: float, learn: bool = True, batches: int = 8) -> None:
        """
        Args:
            channels: number of factors.
            init: start of every factor; 0 measures it over ``batches`` training batches.
            learn: whether the factors are trained.
            batches: see ``init``.
        """
        super().__init__()
        self.factor = nn.Parameter(torch.full((channels,), float(init or 1)), requires_grad=learn)
        # Buffers, so that a resumed run goes on measuring where it was, or does not measure again.
        self.register_buffer("batches_left", torch.tensor(0 if init else batches))
        self.register_buffer("norm_sum", torch.zeros(()))
        self.register_buffer("norm_count", torch.zeros(()))
        # The same as batches_left, on the host: reading the buffer would stall a GPU in every step.
        self._measuring = not init

    @property
    def measuring(self) -> bool:
        """Whether :meth:`observe` would do anything."""
        return self.training and self._measuring

    @torch.no_grad()
    def observe(self, pooled: Tensor, norm: str) -> None:
        """While measuring, set the factors to the mean norm of what was observed so far.

        Does nothing in evaluation or after the measurement. All processes of a distributed run must
        call it together; they get the same factors.

        Args:
            pooled: (M, C, P, P) feature whose mean norm becomes the scale; M may be 0.
            norm: "roi" or "position", see :func:`ion_d2.layers.l2_normalize`.
        """
        if not self.measuring:
            return
        total = torch.zeros(2, device=self.factor.device)
        if len(pooled):
            total[0], total[1] = mean_l2_norm(pooled, norm) * len(pooled), len(pooled)
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(total)
        self.norm_sum += total[0]
        self.norm_count += total[1]
        if self.norm_count > 0:
            self.factor.fill_(self.norm_sum / self.norm_count)
            self.batches_left -= 1
        self._measuring = bool(self.batches_left > 0)
        if not self._measuring:
            logger.info(
                "SKIP_POOLER: the scale starts at %.4g, the mean norm over %d regions.",
                float(self.norm_sum / self.norm_count),
                int(self.norm_count),
            )

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        if prefix + "factor" not in state_dict:
            # Detectron2's checkpointer took the factors out because they are of other features:
            # neither does their measurement count.
            for name, _ in self.named_buffers():
                state_dict.pop(prefix + name, None)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._measuring = bool(self.batches_left > 0)
