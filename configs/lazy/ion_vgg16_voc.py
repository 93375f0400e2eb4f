"""configs/ion_vgg16_voc_d2.yaml as a LazyConfig, for Detectron2's tools/lazyconfig_train_net.py.

    lazyconfig_train_net.py --config-file configs/lazy/ion_vgg16_voc.py \\
        dataloader.train.dataset.names=voc:PATH:trainval \\
        dataloader.test.dataset.names=voc:PATH:test

`model` builds the same modules as configs/ion_vgg16_voc.yaml. Every number stands where the object
that it configures is built; comments give the YAML key's source where it is the paper.
"""

import detectron2.data.transforms as T
import torch
from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler
from omegaconf import OmegaConf

from ion_d2.data.mapper import IONDatasetMapper
from ion_d2.evaluation import IONVOCEvaluator
from ion_d2.lazy import clipped_params, dataset_dicts, skip_pooler
from ion_d2.modeling import ION, IRNN, VGG, ContextBackbone, IONBoxHead, IONROIHeads
from ion_d2.modeling.roi_heads.box_predictor import ImageMeanOutputLayers

model = L(ION)(
    backbone=L(ContextBackbone)(
        # conv1 and conv2 stay as they come, as in the paper's second stage.
        bottom_up=L(VGG)(depth=16, out_features=["conv3", "conv4", "conv5"], freeze_at=2),
        context=L(IRNN)(
            in_channels=512,
            hidden_dim=512,  # Table 8
            out_dim=512,  # Fig. 2
            num_stacks=2,  # sec. 3.2
            transition="full",  # Eq. 1
            dropout=0.25,  # sec. 3.2
        ),
        in_feature="conv5",
    ),
    proposal_generator=L(RPN)(
        in_features=["conv5"],
        head=L(StandardRPNHead)(in_channels=512, num_anchors=15),
        anchor_generator=L(DefaultAnchorGenerator)(
            sizes=[[32, 64, 128, 256, 512]],
            aspect_ratios=[0.5, 1.0, 2.0],
            strides=[16],
            offset=0.0,
        ),
        anchor_matcher=L(Matcher)(
            thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True
        ),
        box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_topk=(12000, 6000),
        post_nms_topk=(2000, 2000),  # 2000 ROIs per image (sec. 3)
        nms_thresh=0.7,
    ),
    roi_heads=L(IONROIHeads)(
        num_classes=20,
        batch_size_per_image=128,  # sec. 4.1
        positive_fraction=0.25,
        # Background is what overlaps an object by 0.1 to 0.5 (Fast R-CNN).
        proposal_matcher=L(Matcher)(
            thresholds=[0.1, 0.5], labels=[-1, 0, 1], allow_low_quality_matches=False
        ),
        box_in_features=["conv3", "conv4", "conv5", "context"],
        box_pooler=L(skip_pooler)(
            channels=[256, 512, 512, 512],
            strides=[4, 8, 16, 16],
            output_size=7,
            pooler_type="ROIPool",
            norm="roi",
            scale_init=0.0,  # measured, as the paper measured its 1000 on Caffe's VGG16
            scale_source=2,
            out_channels=512,
        ),
        box_head=L(IONBoxHead)(
            input_shape=L(ShapeSpec)(channels=512, height=7, width=7), fc_dim=4096, dropout=0.5
        ),
        box_predictor=L(ImageMeanOutputLayers)(
            input_shape=L(ShapeSpec)(channels="${...box_head.fc_dim}"),
            box2box_transform=L(Box2BoxTransform)(weights=(10, 10, 5, 5)),
            num_classes="${..num_classes}",
            test_score_thresh=0.05,
            test_nms_thresh=0.3,
            smooth_l1_beta=1.0,  # Fast R-CNN
        ),
    ),
    # torchvision's VGG16 wants RGB in [0, 255] with these statistics.
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
    input_format="RGB",
)

dataloader = OmegaConf.create()
dataloader.train = L(build_detection_train_loader)(
    dataset=L(dataset_dicts)(names=["voc_2007_trainval", "voc_2012_trainval"]),
    mapper=L(IONDatasetMapper)(
        is_train=True,
        # Shorter side 600, longer at most 1000 pixels (Fast R-CNN).
        augmentations=[
            L(T.ResizeShortestEdge)(short_edge_length=(600,), max_size=1000, sample_style="choice"),
            L(T.RandomFlip)(horizontal=True),
        ],
        image_format="${model.input_format}",
        use_difficult=True,
    ),
    total_batch_size=4,
    num_workers=4,
)
dataloader.test = L(build_detection_test_loader)(
    dataset=L(dataset_dicts)(names="voc_2007_test", filter_empty=False),
    mapper=L(IONDatasetMapper)(
        is_train=False,
        augmentations=[L(T.ResizeShortestEdge)(short_edge_length=600, max_size=1000)],
        image_format="${model.input_format}",
    ),
    num_workers=4,
)
dataloader.evaluator = L(IONVOCEvaluator)(
    dataset_name="${..test.dataset.names}", output_dir="${train.output_dir}"
)

optimizer = L(torch.optim.SGD)(
    # params.model is set by the program, before the optimizer is built.
    params=L(clipped_params)(
        max_norm=20.0,  # sec. 4.1
        base_lr="${..lr}",
        weight_decay="${..weight_decay}",
        weight_decay_norm=0.0,
        # Fast R-CNN: biases learn twice as fast as weights and do not decay.
        bias_lr_factor=2.0,
        weight_decay_bias=0.0,
    ),
    lr=0.001,
    momentum=0.9,
    weight_decay=0.0005,
)
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(
        values=[1.0, 0.1, 0.01], milestones=[70000, 90000, 100000]
    ),
    warmup_factor=0.001,
    warmup_length=1000 / 100000,
    warmup_method="linear",
)

train = dict(
    output_dir="./output/ion_vgg16_voc_lazy",
    # torchvision's published ImageNet weights; a local copy may be given instead.
    init_checkpoint="https://download.pytorch.org/models/vgg16-397923af.pth",
    max_iter=100000,
    amp=dict(enabled=False),
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False),
    checkpointer=dict(period=5000, max_to_keep=100),
    eval_period=5000,
    log_period=20,
    device="cuda",
    seed=0,
)
