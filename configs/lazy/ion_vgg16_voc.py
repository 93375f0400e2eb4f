"""The main model, configs/ion_vgg16_voc.yaml, as a LazyConfig: `model` builds the same modules.

    from detectron2.config import LazyConfig, instantiate
    model = instantiate(LazyConfig.load("configs/lazy/ion_vgg16_voc.py").model)

Every number stands where the object that it configures is built; comments give the YAML key's
source where it is the paper.
"""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead

from ion_d2.lazy import skip_pooler
from ion_d2.modeling import ION, IRNN, VGG, ContextBackbone, IONBoxHead, IONROIHeads
from ion_d2.modeling.box_predictor import ImageMeanOutputLayers

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
