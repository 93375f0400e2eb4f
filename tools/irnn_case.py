"""A map on which contenders of the spatial IRNN are checked and timed."""

from __future__ import annotations

import sys

import torch
from irnn_gradient import exact_gradient
from irnn_rivals import OWN, Contender, matrices_of
from torch import Tensor

from ion_d2.layers import DIRECTIONS, spatial_irnn_reference
from ion_d2.layers.irnn.arguments import transition_kind

# Bound on the relative error of float32 states and gradients, against float64.
TOLERANCE = 1e-5


class Case:
    """A map, its weight and a gradient of the output, all random, on one device."""

    def __init__(self, size: str, kind: str, device: str) -> None:
        """
        Args:
            size: "NxCxHxW".
            kind: transition, "identity", "diagonal" or "full".
            device: "cpu" or "cuda".
        """
        torch.manual_seed(0)
        shape = [int(side) for side in size.split("x")]
        count, channels, height, width = shape
        self.x = torch.randn(shape, device=device, requires_grad=True)
        directions = len(DIRECTIONS)
        self.weight = {
            "identity": lambda: None,
            "diagonal": lambda: torch.rand(directions, channels),
            "full": lambda: torch.randn(directions, channels, channels) * 0.5 / channels**0.5,
        }[kind]()
        if self.weight is not None:
            self.weight = self.weight.to(device).requires_grad_()
        self.grad = torch.randn(count, directions * channels, height, width, device=device)
        self._grad_channels_last = self.grad.contiguous(memory_format=torch.channels_last)

    def forward(self, contender: Contender) -> Tensor:
        """The states."""
        return contender(self.x, self.weight)

    def grad_like(self, out: Tensor) -> Tensor:
        """``grad`` as a 1x1 convolution after the operator hands it back: in its input's layout."""
        channels_last = out.is_contiguous(memory_format=torch.channels_last)
        return self._grad_channels_last if channels_last else self.grad

    def both(self, contender: Contender) -> None:
        """The states and the gradients."""
        self.x.grad = None
        out = contender(self.x, self.weight)
        out.backward(self.grad_like(out))

    def result(self, contender: Contender) -> tuple[Tensor, Tensor, Tensor | None]:
        """The states, and the gradients of the input and the weight, detached."""
        out = self.forward(contender)
        leaves = [self.x, *matrices_of(contender, self.weight)]
        by_x, *by_weight = torch.autograd.grad(out, leaves, self.grad_like(out))
        if len(by_weight) > 1:
            by_weight = [torch.stack(by_weight)]
        return out.detach(), by_x, by_weight[0] if by_weight else None


def wrong(case: Case, found: dict[str, Contender]) -> dict[str, str]:
    """Compare each contender's states with the definition, its gradients with theirs, in float64.

    Returns:
        A sentence for each contender that is wrong.
    """
    weight = None if case.weight is None else case.weight.detach().double()
    expected = spatial_irnn_reference(case.x.detach().double(), weight)
    complaints: dict[str, str] = {}
    for name, contender in found.items():
        states, by_x, by_weight = case.result(contender)
        true_by_x, true_by_weight = exact_gradient(states, weight, case.grad)
        pairs = {"states": (states, expected), "gradient": (by_x, true_by_x)}
        if by_weight is not None:
            pairs["gradient of the weight"] = (by_weight, true_by_weight)
        for what, (got, true) in pairs.items():
            error = ((got - true).abs().max() / true.abs().max()).item()
            if not error < TOLERANCE:
                complaints.setdefault(
                    name,
                    f"{name} is wrong on {tuple(case.x.shape)}, {transition_kind(case.weight)}: "
                    f"the {what} is off by {error:.1e}, expected less than {TOLERANCE:.0e}.",
                )
    return complaints


def leave_out_wrong(case: Case, found: dict[str, Contender]) -> None:
    """Take the rivals that are wrong on a case out of ``found``, and say so.

    Raises:
        SystemExit: one of our own back-ends is wrong.
    """
    for name, complaint in wrong(case, found).items():
        if name.startswith(OWN):
            raise SystemExit(complaint)
        print(f"{complaint} It is left out there.", file=sys.stderr)
        del found[name]
