#!/usr/bin/env python
"""Measure what an image's padding in a batch still changes in its features.

The recurrence sees no padding, but the convolutions below it do: they read zeros beyond an image
that stands alone, and what they made of the padding beyond one that was padded; and a GroupNorm
averages over both. Prints the relative difference of each feature, over all valid cells and over
those farther from the padded sides than the receptive field of conv5 reaches.

    python tools/measure_padding.py --config-file configs/ion_vgg16_voc.yaml image.jpg
"""

from __future__ import annotations

import argparse

import torch
from detectron2.modeling import build_model
from torch import Tensor

from ion_d2.data.readable import read_image
from ion_d2.engine.checkpoint import IONCheckpointer
from ion_d2.engine.setup import load_config, run_cli
from ion_lab.scenes.geometry import receptive_field, vgg_conv5_layers


def measure(model: torch.nn.Module, image: Tensor, margin: int) -> dict[str, tuple[float, float]]:
    """Compare the features of an image, (3, H, W), alone with those beside a larger image.

    Returns:
        For each feature, the relative root-mean-square difference over all cells, and over those
        more than ``margin`` pixels from the padded sides.
    """
    height, width = image.shape[-2:]
    larger = torch.zeros(3, height + 128, width + 128, dtype=image.dtype)
    with torch.no_grad():
        alone = model._features(model.preprocess_image([{"image": image}]))
        inputs = [{"image": image}, {"image": larger}]
        batched = model._features(model.preprocess_image(inputs))
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


def main() -> None:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", required=True)
    parser.add_argument("image")
    parser.add_argument("opts", nargs="*", help="overrides, KEY VALUE ...")
    args = parser.parse_args()
    opts = ["MODEL.ROI_HEADS.NUM_CLASSES", "20", "MODEL.WEIGHTS", "", *args.opts]
    cfg = load_config(args.config_file, opts)
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    if cfg.MODEL.WEIGHTS:
        IONCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    image = torch.as_tensor(read_image(args.image, cfg.INPUT.FORMAT).transpose(2, 0, 1).copy())
    field = receptive_field(vgg_conv5_layers(cfg.MODEL.VGG.DEPTH))
    print(f"{'feature':10s} {'all cells':>10s} {'inner cells':>12s}")
    for name, (everywhere, inner) in measure(model, image, field.size // 2).items():
        print(f"{name:10s} {everywhere:10.2%} {inner:12.2%}")


if __name__ == "__main__":
    run_cli(main)
