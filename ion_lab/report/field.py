"""Effective receptive fields: how strongly each pixel moves one cell of a feature.

Shape shorthand: N images of H x W pixels; C channels of the feature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn


def effective_fields(
    backbone: nn.Module,
    images: Sequence[Tensor],
    cells: Mapping[str, tuple[int, int]],
    *,
    probes: int = 4,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Measure the effective receptive field of one cell of each of several features.

    The energy of a pixel is the squared derivative of the cell's C values with respect to the
    pixel's colors, summed over both: the squared Frobenius norm of that block of the Jacobian. It
    is estimated without bias by the squared gradient of random signed sums of the C values. The
    energies of an image are divided by their sum, so that each image counts alike, and averaged;
    the root is the field.

    Args:
        backbone: maps (1, 3, H, W) to features by name; in evaluation mode.
        images: N normalized images (3, H, W) of one size, on the backbone's device.
        cells: feature -> (row, column) of its cell.
        probes: random sums an image.
        seed: of the random signs.

    Returns:
        Feature -> (H, W) float64 array whose squares sum to 1; all 0 where the cell moves with no
        pixel of any image.
    """
    generator = torch.Generator().manual_seed(seed)
    totals = {name: np.zeros(tuple(images[0].shape[1:])) for name in cells}
    for image in images:
        x = image[None].detach().requires_grad_()
        with torch.enable_grad():
            features = backbone(x)
        for name, (row, column) in cells.items():
            values = features[name][0, :, row, column]
            energies = [_energy(values, x, _signs(values, generator)) for _ in range(probes)]
            energy = np.sum(energies, axis=0)
            totals[name] += energy / (energy.sum() or 1.0)
    return {name: np.sqrt(total / (total.sum() or 1.0)) for name, total in totals.items()}


def _signs(values: Tensor, generator: torch.Generator) -> Tensor:
    signs = torch.randint(0, 2, values.shape, generator=generator) * 2 - 1
    return signs.to(values)


def _energy(values: Tensor, x: Tensor, weights: Tensor) -> np.ndarray:
    """Squared gradient of a weighted sum with respect to each pixel, summed over colors."""
    (gradient,) = torch.autograd.grad(values, x, weights, retain_graph=True)
    return gradient[0].double().square().sum(dim=0).cpu().numpy()


def share_within(field: np.ndarray, center: tuple[float, float]) -> np.ndarray:
    """How much of a field (H, W) lies within squares around its cell.

    Args:
        field: not negative.
        center: (y, x) in pixels, 0 being the left or upper edge of the first pixel.

    Returns:
        Share of the field's sum inside the square that reaches d pixels to each side, for d = 0, 1,
        ... until it covers the image. A pixel counts from where its middle is inside.
    """
    rows, columns = (np.arange(length) + 0.5 for length in field.shape)
    distance = np.maximum(abs(rows - center[0])[:, None], abs(columns - center[1])[None, :])
    steps = np.ceil(distance).astype(int)
    shares = np.bincount(steps.ravel(), weights=field.ravel()).cumsum()
    return shares / (shares[-1] or 1.0)
