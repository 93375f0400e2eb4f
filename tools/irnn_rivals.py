"""What the benchmark of the spatial IRNN compares: our back-ends, and other ways to the same.

Every contender is a function of the input and the weight that returns the four directions'
states, (N, 4 * C, H, W), and can be differentiated.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ion_d2.layers import spatial_irnn, spatial_irnn_reference
from ion_d2.layers.irnn import BACKENDS, unavailable_backends

Contender = Callable[..., Tensor]
# How the names of our own back-ends begin.
OWN = "ion_d2 "


def contenders(kind: str, device: str, channels: int) -> dict[str, Contender]:
    """Everything that can run one kind of transition on a device.

    Args:
        kind: "identity", "diagonal" or "full".
        device: "cpu" or "cuda".
        channels: C of the maps.

    Returns:
        Contenders by name: "ion_d2 NAME" for each available back-end, "plain loop"; with a
        full matrix "nn.RNN"; on a GPU, without one, "thread a cell".
    """
    missing = unavailable_backends(device, torch.float32, kind)
    found: dict[str, Contender] = {
        f"{OWN}{name}": functools.partial(spatial_irnn, backend=name)
        for name in BACKENDS
        if name not in missing
    }
    found["plain loop"] = spatial_irnn_reference
    if device == "cuda" and kind != "full":
        from irnn_per_cell import per_cell_irnn  # needs Triton

        found["thread a cell"] = per_cell_irnn
    if kind == "full":
        found["nn.RNN"] = BidirectionalRNNs(channels).to(device)
    return found


def contender_parameters(contender: Contender) -> list[nn.Parameter]:
    """The parameters that a contender has of its own; none if it takes the weight that it is given.

    Args:
        contender: one of :func:`contenders`.
    """
    return list(contender.parameters()) if isinstance(contender, nn.Module) else []


def matrices_of(contender: Contender, weight: Tensor | None) -> list[Tensor]:
    """Where a contender's gradient with respect to the weight arrives.

    Args:
        contender: one of :func:`contenders`.
        weight: what it is given.

    Returns:
        The weight itself, or a matrix for each direction; nothing for the identity.
    """
    if isinstance(contender, BidirectionalRNNs):
        names = ("weight_hh_l0", "weight_hh_l0_reverse")
        return [getattr(rnn, name) for rnn in (contender.rows, contender.columns) for name in names]
    return [] if weight is None else [weight]


class BidirectionalRNNs(nn.Module):
    """``torch.nn.RNN(nonlinearity="relu", bidirectional=True)`` on the rows and on the columns.

    On a GPU that is cuDNN's. Its input-to-hidden matrix, which it cannot do without, is the
    identity here; the spatial IRNN leaves it to the 1x1 convolution before.
    """

    def __init__(self, channels: int) -> None:
        """
        Args:
            channels: C of the maps.
        """
        super().__init__()
        self.rows = self._make(channels)
        self.columns = self._make(channels)

    @staticmethod
    def _make(channels: int) -> nn.RNN:
        rnn = nn.RNN(channels, channels, nonlinearity="relu", bias=False, bidirectional=True)
        for name in ("weight_ih_l0", "weight_ih_l0_reverse"):
            nn.init.eye_(getattr(rnn, name))
        return rnn

    def load(self, weight: Tensor) -> None:
        """Take over hidden-to-hidden matrices, (4, C, C): right, left, down, up."""
        pairs = ((self.rows, weight[:2]), (self.columns, weight[2:]))
        with torch.no_grad():
            for rnn, (there, back) in pairs:
                rnn.weight_hh_l0.copy_(there)
                rnn.weight_hh_l0_reverse.copy_(back)

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """
        Args:
            x: (N, C, H, W).
            weight: not read: see :meth:`load`.

        Returns:
            (N, 4 * C, H, W).
        """
        count, channels, height, width = x.shape
        rows, _ = self.rows(x.permute(3, 0, 2, 1).reshape(width, -1, channels))
        columns, _ = self.columns(x.permute(2, 0, 3, 1).reshape(height, -1, channels))
        rows = rows.view(width, count, height, -1).permute(1, 3, 2, 0)
        columns = columns.view(height, count, width, -1).permute(1, 3, 0, 2)
        return torch.cat([rows, columns], dim=1)
