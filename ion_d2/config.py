"""Every config key that ION adds to Detectron2, with its meaning, unit and source.

Section numbers ("sec.") and tables refer to the ION paper (Bell et al., CVPR 2016).
"""

from __future__ import annotations

from detectron2.config import CfgNode


def add_ion_config(cfg: CfgNode) -> None:
    """Add ION's keys with their defaults to a Detectron2 config.

    Calling it again leaves every value that is already set as it is.

    Args:
        cfg: the config to extend, in place.
    """
    _fill(cfg, _defaults())


def _fill(node: CfgNode, defaults: CfgNode) -> None:
    """Copy into ``node`` every key of ``defaults`` that it lacks, recursively."""
    for key, value in defaults.items():
        if key not in node:
            node[key] = value
        elif isinstance(value, CfgNode):
            _fill(node[key], value)


def _defaults() -> CfgNode:
    root = CfgNode()
    root.MODEL = CfgNode()
    _add_vgg(root.MODEL)
    _add_context(root.MODEL)
    _add_skip_pooler(root.MODEL)
    _add_box_head(root.MODEL)
    _add_segmentation(root.MODEL)
    _add_data(root)
    _add_test(root)
    return root


def _add_vgg(model: CfgNode) -> None:
    model.VGG = CfgNode()
    # Number of weighted layers of the VGG: 11, 13, 16 or 19. The paper uses 16 (sec. 4.1).
    model.VGG.DEPTH = 16
    # Factor on every channel count (64, 128, 256, 512, 512); below 1 for small models on a CPU.
    model.VGG.WIDTH_MULTIPLIER = 1.0
    # Normalisation after each convolution, a name known to Detectron2's get_norm ("" is none, as in
    # the paper).
    model.VGG.NORM = ""
    # Features the backbone returns, each the last ReLU of its block, of "conv1" (stride 1) to
    # "conv5" (stride 16).
    model.VGG.OUT_FEATURES = ["conv3", "conv4", "conv5"]


def _add_context(model: CfgNode) -> None:
    model.CONTEXT = CfgNode()
    # Kind of context block, a name in CONTEXT_REGISTRY. "IRNN" is the paper's (sec. 3.2).
    model.CONTEXT.NAME = "IRNN"
    # Registered backbone builder that the context block extends.
    model.CONTEXT.BOTTOM_UP = "build_ion_vgg_backbone"
    # Feature of that backbone which feeds the block; the new feature is called "context" (Fig. 2:
    # conv5).
    model.CONTEXT.IN_FEATURE = "conv5"
    # Number of stacked four-directional IRNNs (sec. 3.2: 2, so that every cell sees every other).
    model.CONTEXT.NUM_STACKS = 2
    # Channels of each directional hidden state (Table 8: 512).
    model.CONTEXT.HIDDEN_DIM = 512
    # Channels of the context feature (Fig. 2: 512).
    model.CONTEXT.OUT_DIM = 512
    # Hidden-to-hidden transition: "full" matrix (Eq. 1), "diagonal" (one weight a channel) or
    # "identity" (Eq. 2).
    model.CONTEXT.TRANSITION = "full"
    # Start of the block's 1x1 convolutions, on which the paper is silent: "xavier", or
    # "pass_through", which hands the feature and then the mean of the four directions on unchanged.
    model.CONTEXT.INIT = "xavier"
    # Start of the biases of the convolutions that feed a recurrence, in units of their output.
    # Below 0, what is common everywhere (the background) does not add up along a sweep.
    model.CONTEXT.BIAS_INIT = 0.0
    # Dropout probability after each concatenation of the four directions (sec. 3.2: 0.25).
    model.CONTEXT.DROPOUT = 0.25


def _add_skip_pooler(model: CfgNode) -> None:
    model.SKIP_POOLER = CfgNode()
    # L2 normalisation of each pooled feature: "roi" over all its entries, "position" across the
    # channels at each bin, or "none" (sec. 5.2).
    model.SKIP_POOLER.NORM = "roi"
    # Start of the per-channel scale after normalisation (sec. 3.1: 1000, the mean norm of VGG16's
    # pooled conv5; about 130 goes with "position"). 0 measures that norm on the first training
    # batches instead.
    model.SKIP_POOLER.SCALE_INIT = 1000.0
    # Whether the scale is learned (sec. 5.2: makes no difference).
    model.SKIP_POOLER.LEARN_SCALE = True
    # Training batches over which SCALE_INIT 0 averages the norm, before the scale is fixed at the
    # mean.
    model.SKIP_POOLER.SCALE_BATCHES = 8
    # Channels after the 1x1 convolution that merges the features (sec. 3.1: 512, what fc6 of VGG16
    # expects). IONRes5ROIHeads takes as many as res5 reads instead.
    model.SKIP_POOLER.OUT_CHANNELS = 512


def _add_box_head(model: CfgNode) -> None:
    model.ROI_BOX_HEAD = CfgNode()
    # Dropout probability after fc6 and fc7 of IONBoxHead (Fast R-CNN, and so the paper: 0.5).
    model.ROI_BOX_HEAD.FC_DROPOUT = 0.5


def _add_segmentation(model: CfgNode) -> None:
    # Add the semantic-segmentation loss on the context feature (sec. 3.2); MODEL.SEM_SEG_HEAD
    # describes its head. Training only, unless TEST.SEM_SEG asks for its predictions.
    model.SEG_REGULARIZER_ON = False
    model.SEM_SEG_HEAD = CfgNode()
    # Whether IONSegHead brings the feature of each cell to unit mean square before the
    # deconvolution. The recurrence sums along whole rows and columns, so that the context feature
    # is tens to hundreds of times larger than conv5; the loss does not train from there. Fig. 2
    # draws no such step.
    model.SEM_SEG_HEAD.NORMALIZE_INPUT = True


def _add_data(root: CfgNode) -> None:
    root.DATASETS = CfgNode()
    # Train on boxes marked difficult as well (Fast R-CNN, and so the paper, leaves them out).
    # VOC-format data only.
    root.DATASETS.USE_DIFFICULT = False
    root.INPUT = CfgNode()
    # Leave out pictures that cannot be decoded, with a warning that names each, instead of
    # stopping.
    root.INPUT.SKIP_UNREADABLE = False


def _add_test(root: CfgNode) -> None:
    root.TEST = CfgNode()
    # Average precision that the headline VOC figures use: "11point" (VOC2007, as in Table 1) or
    # "area" (VOC2010 on). Both are always reported.
    root.TEST.VOC_METRIC = "11point"
    # Predict and evaluate segmentation too, where the model has the head and the dataset has labels
    # (mean IoU).
    root.TEST.SEM_SEG = False
    # Pictures of detections beside ground truth written to OUTPUT_DIR/pictures after each
    # evaluation; 0 is none.
    root.TEST.NUM_PICTURES = 4
    root.TEST.BOX_REFINEMENT = CfgNode()
    # Two-round box regression with weighted voting, the paper's "W" (sec. 4.2).
    root.TEST.BOX_REFINEMENT.ENABLED = False
    # Number of times the boxes pass through the ROI head; all rounds' boxes take part in the vote.
    root.TEST.BOX_REFINEMENT.ROUNDS = 2
    # IoU from which a box votes for a kept one (sec. 4.2: 0.5 on VOC; sec. 4.4: about 0.85 on
    # COCO).
    root.TEST.BOX_REFINEMENT.VOTE_IOU = 0.5
