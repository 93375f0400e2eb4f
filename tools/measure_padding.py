#!/usr/bin/env python
"""Measure what an image's padding in a batch still changes in its features.

The recurrence sees no padding, but the convolutions below it do: they read zeros beyond an image
that stands alone, and what they made of the padding beyond one that was padded; and a GroupNorm
averages over both. Prints the relative difference of each feature, over all valid cells and, of a
VGG, over those farther from the padded sides than the receptive field of conv5 reaches. Under other
meta-architectures than ION, the recurrence takes the padding for image.

    python tools/measure_padding.py --config-file configs/ion_vgg16_voc.yaml image.jpg
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import torch
from features import build_seeded, features_of
from torch import Tensor, nn

from ion_d2.data.readable import read_image
from ion_d2.engine.setup import load_config, run_cli
from ion_lab.report.reach import vgg_field


def measure(model: nn.Module, image: Tensor, margin: int | None) -> dict[str, tuple[float, float]]:
    """Compare the features of an image, (C, H, W), alone with those beside a larger image.

    Returns:
        For each feature, the relative root-mean-square difference over all cells, and over those
        more than ``margin`` pixels from the padded sides: NaN where there are none.
    """
    height, width = image.shape[-2:]
    margin = max(height, width) if margin is None else margin
    larger = image.new_zeros(len(image), height + 128, width + 128)
    with torch.no_grad():
        alone = features_of(model, model.preprocess_image([{"image": image}]))
        inputs = [{"image": image}, {"image": larger}]
        batched = features_of(model, model.preprocess_image(inputs))
    strides = {name: shape.stride for name, shape in model.backbone.output_shape().items()}
    result = {}
    for name, x in alone.items():
        y = batched[name][:1, :, : x.shape[2], : x.shape[3]]
        rows, columns = ((side - margin) // strides[name] for side in (height, width))
        inner = (..., slice(max(rows, 0)), slice(max(columns, 0)))
        result[name] = (_relative(x, y), _relative(x[inner], y[inner]))
    return result


def _relative(x: Tensor, y: Tensor) -> float:
    return float((x - y).norm() / x.norm())


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print.

    Args:
        argv: the arguments; None takes them from the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", required=True)
    parser.add_argument("image")
    parser.add_argument("opts", nargs="*", help="overrides, KEY VALUE ...")
    args = parser.parse_intermixed_args(argv)
    classes = ["MODEL.ROI_HEADS.NUM_CLASSES", "20", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "21"]
    opts = [*classes, "MODEL.WEIGHTS", "", *args.opts]
    cfg = load_config(args.config_file, opts)
    model = build_seeded(cfg)
    image = torch.as_tensor(read_image(args.image, cfg.INPUT.FORMAT).transpose(2, 0, 1).copy())
    field = vgg_field(getattr(model.backbone, "bottom_up", model.backbone), "conv5")
    margin = None if field is None else field.size // 2
    if margin is not None:
        print(f"Inner cells are those more than {margin} pixels from the padded sides.")
    print(f"{'feature':10s} {'all cells':>10s} {'inner cells':>12s}")
    for name, (everywhere, inner) in measure(model, image, margin).items():
        print(f"{name:10s} {everywhere:10.2%} {'-' if math.isnan(inner) else f'{inner:.2%}':>12s}")


if __name__ == "__main__":
    run_cli(main)
