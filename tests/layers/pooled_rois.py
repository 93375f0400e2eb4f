"""ROIs as a detector's training meets them, and worse ones."""

import torch


def random_rois(count, seed, images=2, extent=120.0):
    """Boxes inside, across and outside the map, some turned inside out, some on half cells."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 4, generator=generator) * extent * 1.6 - extent * 0.3
    corners[::3] = (corners[::3] / 2).round() * 2
    inside_out = torch.rand(count, 1, generator=generator) < 0.1
    low, high = (
        torch.minimum(corners[:, :2], corners[:, 2:]),
        torch.maximum(corners[:, :2], corners[:, 2:]),
    )
    boxes = torch.where(inside_out, torch.cat([high, low], 1), torch.cat([low, high], 1))
    image = torch.randint(0, images, (count, 1), generator=generator)
    return torch.cat([image.float(), boxes], dim=1)
