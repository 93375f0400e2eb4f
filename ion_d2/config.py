"""Every config key that ION adds to Detectron2, with its meaning, unit and source.

Section numbers ("sec.") and tables refer to the ION paper (Bell et al., CVPR 2016).
"""

from __future__ import annotations

import copy
from typing import Any

from detectron2.config import CfgNode

_DEFAULTS: dict[str, Any] = {
    # Number of weighted layers of the VGG: 11, 13, 16 or 19 (sec. 4.1: 16).
    "MODEL.VGG.DEPTH": 16,
    # Factor above 0 on all channel counts (64, 128, 256, 512, 512); below 1 for small CPU models.
    "MODEL.VGG.WIDTH_MULTIPLIER": 1.0,
    # Normalization after each convolution: "" (none, as in the paper), "BRN" (batch
    # renormalization) or a name of Detectron2's get_norm.
    "MODEL.VGG.NORM": "",
    # Blocks whose last ReLU is a feature: "conv1" (stride 1 pixel), "conv2" (2), ... "conv5" (16).
    "MODEL.VGG.OUT_FEATURES": ["conv3", "conv4", "conv5"],
    # Initial factors, above 0, on what conv1 to conv5 return, where NORM is set. With 1, all five
    # features have the same amplitude; ImageNet's VGG16 has different ones: a mean of 178 in conv4
    # (github.com/weiliu89/caffe issue 254), about 6 in conv5 (sec. 5.2: a norm of 1000 when
    # pooled). Loaded weights replace them.
    "MODEL.VGG.GAINS": [1.0, 1.0, 1.0, 1.0, 1.0],
    # Network of the package timm for "build_timm_backbone", see timm.list_models(). The first
    # MODEL.BACKBONE.FREEZE_AT of its stages, and what lies before them, are not trained.
    "MODEL.TIMM.NAME": "resnet50",
    # Weights of the network: a file (.pth, .safetensors) of timm or efficientnet-lite-pytorch,
    # "timm" to download timm's, or "" for random ones. Not read if MODEL.WEIGHTS names a checkpoint
    # of the detector. ImageNet's want INPUT.FORMAT RGB and their own MODEL.PIXEL_MEAN and PIXEL_STD
    # (times 255 where those are for pixels up to 1); a warning tells timm's.
    "MODEL.TIMM.WEIGHTS": "",
    # Features to return, "stage1", "stage2", ... as timm counts them: a ResNet or an EfficientNet
    # has five of strides 2, 4, 8, 16 and 32, a ConvNeXt or a Swin four from 4 on.
    "MODEL.TIMM.OUT_FEATURES": ["stage2", "stage3", "stage4", "stage5"],
    # Largest stride in pixels, for instance 16: later stages are dilated instead, where the network
    # can be. 0 keeps the network's own stride.
    "MODEL.TIMM.OUTPUT_STRIDE": 0,
    # Whether batch norms keep the statistics, scale and shift of the weights. Those of stages that
    # are not trained always do.
    "MODEL.TIMM.FREEZE_NORM": True,
    # Kind of context block, a name in CONTEXT_REGISTRY. "IRNN" is the paper's (sec. 3.2); "RNN" has
    # PyTorch's cells in its place; "Conv" and "GlobalAverage" (Table 7) have no recurrence; "Chain"
    # and "Branches" combine several.
    "MODEL.CONTEXT.NAME": "IRNN",
    # Backbone that the context block extends: the name of a registered function that builds one.
    "MODEL.CONTEXT.BOTTOM_UP": "build_ion_vgg_backbone",
    # Feature of the backbone that the block reads (Fig. 2: conv5); it returns one called "context".
    "MODEL.CONTEXT.IN_FEATURE": "conv5",
    # Number of stacked four-directional IRNNs (sec. 3.2: 2, so that every cell sees every other),
    # or of layers of "Conv".
    "MODEL.CONTEXT.NUM_STACKS": 2,
    # Channels of the state of each direction (Table 8: 512), or of each layer of "Conv" but the
    # last. 0: as many as IN_FEATURE has.
    "MODEL.CONTEXT.HIDDEN_DIM": 512,
    # Channels of the context feature (Fig. 2: 512). 0: as many as IN_FEATURE has, which
    # "GlobalAverage" always returns.
    "MODEL.CONTEXT.OUT_DIM": 512,
    # How a state of "IRNN" follows from the one before: by a "full" matrix (Eq. 1), "diagonal" (a
    # weight for each channel), "identity" (the sum, without weights: Eq. 2), or "max" (the largest
    # value so far instead of a sum, for cues of a few cells; not the paper's, no ONNX export).
    "MODEL.CONTEXT.TRANSITION": "full",
    # Initial weights of the 1x1 convolutions of "IRNN", on which the paper is silent: "xavier"
    # (random); "pass_through", which hands on the feature and then the mean of the four directions;
    # or "rows_then_columns", the mean of the two horizontal and then of the two vertical ones.
    "MODEL.CONTEXT.INIT": "xavier",
    # Normalization after each convolution of "IRNN" and "Conv", and of "GlobalAverage": "" (the
    # paper's) or "BRN" (batch renormalization, which helps short trainings: docs/STUDY.md).
    "MODEL.CONTEXT.NORM": "",
    # Initial biases of the convolutions that feed the recurrences of "IRNN", added to what they
    # return; with NORM "BRN", 1 is one standard deviation of it. Below 0, what is common everywhere
    # (the background) does not add up along a sweep; above 0, negative values count too.
    "MODEL.CONTEXT.BIAS_INIT": 0.0,
    # Dropout of "IRNN" and "RNN" after each concatenation of the four directions, from 0 to below 1
    # (sec. 3.2: 0.25).
    "MODEL.CONTEXT.DROPOUT": 0.25,
    # Directions in which each stack of "IRNN" and "RNN" travels, of "right", "left", "down", "up";
    # the last list serves all further stacks. Table 9a has [["left", "right"], ["up", "down"]].
    "MODEL.CONTEXT.DIRECTIONS": [["right", "left", "down", "up"]],
    # Whether the directions of an "IRNN" share the 1x1 convolution that feeds them, which is faster
    # (sec. 3.2: and costs 0.1 mAP).
    "MODEL.CONTEXT.SHARED_INPUT": True,
    # Whether each direction of an "IRNN" learns a bias for its first cell (sec. 3.2: stays near 0).
    "MODEL.CONTEXT.FIRST_STEP_BIAS": False,
    # Whether "IRNN" also returns its earlier stacks, after a ReLU, as features "context1", ... for
    # MODEL.ROI_HEADS.IN_FEATURES (Table 9b).
    "MODEL.CONTEXT.ALL_STACKS": False,
    # Cell of "RNN": "tanh", "gru" or "lstm" (sec. 3.2 names them; none was tried).
    "MODEL.CONTEXT.CELL": "gru",
    # Side of the kernels of "Conv", odd, in cells (Table 7: 3 with 512 channels, 5 with 256).
    "MODEL.CONTEXT.KERNEL_SIZE": 3,
    # Names of the blocks that "Chain" runs one after the other, or "Branches" side by side (Table
    # 9c). The first of "Branches" gives the feature "context", a further one, say "Conv",
    # "context_conv".
    "MODEL.CONTEXT.PARTS": [],
    # L2 normalization of each pooled feature: "roi" over all its entries, "position" over the
    # channels of each bin, or "none" (sec. 5.2), after which there are no factors either.
    "MODEL.SKIP_POOLER.NORM": "roi",
    # Initial factor on each channel after the normalization, at least 0: the mean norm of pooled
    # conv5 (sec. 3.1: 1000 for Caffe's VGG16; about 130 with NORM "position"). 0.0 measures it in
    # the first passes of the training, which is right for any weights: on the deepest feature, or,
    # where context is pooled alone, on the one that feeds its block.
    "MODEL.SKIP_POOLER.SCALE_INIT": 1000.0,
    # Whether these factors are learned (sec. 5.2: makes no difference).
    "MODEL.SKIP_POOLER.LEARN_SCALE": True,
    # Number of first forward passes over which SCALE_INIT 0.0 averages the norm, above 0.
    "MODEL.SKIP_POOLER.SCALE_BATCHES": 8,
    # How context joins the other features. "concat": beside them, and a 1x1 convolution merges all
    # (sec. 3.1). "residual": added to the deepest of them, normalized and scaled like it, times a
    # learned gate (not the paper's; docs/PHOTOGRAPHS.md). Where context has as many channels as
    # that feature (MODEL.CONTEXT.OUT_DIM), both share their weights in the convolution.
    "MODEL.SKIP_POOLER.CONTEXT": "concat",
    # Initial share of context: with "concat", a factor on its weights in the 1x1 convolution; with
    # "residual", the gate. 1 gives it the weight of the other features, 0 starts as if there were
    # no context.
    "MODEL.SKIP_POOLER.CONTEXT_GAIN": 1.0,
    # Channels after the 1x1 convolution (sec. 3.1: 512, what fc6 of VGG16 expects). Not read by
    # IONRes5ROIHeads, which has as many as res5 expects.
    "MODEL.SKIP_POOLER.OUT_CHANNELS": 512,
    # Factor above 0 on the initial weights of that convolution. A box head that starts at random
    # learns sooner from less than 1 (not the paper's; docs/PHOTOGRAPHS_TRIALS.md).
    "MODEL.SKIP_POOLER.MERGE_GAIN": 1.0,
    # Dropout after fc6 and fc7 of IONBoxHead, from 0 to below 1 (Fast R-CNN, so the paper: 0.5).
    "MODEL.ROI_BOX_HEAD.FC_DROPOUT": 0.5,
    # Whether there is any dropout: False switches MODEL.ROI_BOX_HEAD.FC_DROPOUT and
    # MODEL.CONTEXT.DROPOUT off (row "D" of Tables 1 to 3).
    "MODEL.DROPOUT_ON": True,
    # Standard deviation of the first weights of IONROIHeads' class scores, above 0 (Fast R-CNN, so
    # the paper: 0.01). Ten times that may help new heads on a trained backbone
    # (docs/STUDY_TRIALS.md).
    "MODEL.ROI_BOX_HEAD.CLS_INIT_STD": 0.01,
    # Bins on each side at each level of the spatial pyramid of SPPROIHeads (SPPnet: 6, 3, 2 and 1).
    "MODEL.ROI_BOX_HEAD.PYRAMID_LEVELS": [6, 3, 2, 1],
    # Whether to train with the segmentation loss on the context feature (sec. 3.2), by the head of
    # MODEL.SEM_SEG_HEAD. It costs nothing at test time, unless TEST.SEM_SEG asks for predictions.
    "MODEL.SEG_REGULARIZER_ON": False,
    # Whether IONSegHead first scales each cell's feature to a mean square of 1 (not in Fig. 2).
    # Sums along whole rows make context so large that the loss does not train otherwise.
    "MODEL.SEM_SEG_HEAD.NORMALIZE_INPUT": True,
    # Factor of at least 0 on the initial weights of IONSegHead's class scores (1: Xavier's; FCN:
    # 0). With 1, short trainings learn far context later or not at all (docs/STUDY_TRIALS.md).
    "MODEL.SEM_SEG_HEAD.INIT_GAIN": 1.0,
    # Sides of the parallel kernels of MODEL.RPN.HEAD_NAME "IONRPNHead", odd numbers of cells: the
    # RPN head of the 2015 COCO competition (supplement: 3 and 5).
    "MODEL.RPN.MIXED_KERNELS": [3, 5],
    # Channels of each of these convolutions, which are then concatenated (supplement: 384 and 128).
    "MODEL.RPN.MIXED_CHANNELS": [384, 128],
    # Sides in pixels of further, square anchors of MODEL.ANCHOR_GENERATOR.NAME
    # "IONAnchorGenerator": a list for each feature of MODEL.RPN.IN_FEATURES, or one list for all
    # (supplement: 32).
    "MODEL.ANCHOR_GENERATOR.SQUARE_SIZES": [[32]],
    # Whether to train on objects that VOC's annotations mark as difficult (Fast R-CNN, and so the
    # paper: no). In an evaluation they need not be found, whatever this says.
    "DATASETS.USE_DIFFICULT": False,
    # Folders of label maps, ID.png (class ids, 255 ignored) or SBD's ID.mat, for images without one
    # of their own (VOC's SegmentationClass); the first that has one wins. Pictures in subfolders
    # have theirs in subfolders (a/im0.png), or in none if no other picture is called im0. A plain
    # name is a folder beside the images' folder (or beside one above it, the nearest), anything
    # with "/" a path.
    "DATASETS.SEM_SEG_DIRS": (),
    # Whether pictures that cannot be decoded are left out, with a warning for each. By default the
    # first one stops the run.
    "INPUT.SKIP_UNREADABLE": False,
    # Stages of the training, one mapping each (sec. 4.1 has two); empty for Detectron2's schedules.
    # MAX_ITER: iterations. BASE_LR, END_LR (default BASE_LR): the learning rate falls exponentially
    # from one to the other. FREEZE_AT (default MODEL.BACKBONE.FREEZE_AT): first blocks of the
    # backbone that are not trained. WARMUP_ITERS (default 0): iterations of SOLVER.WARMUP_METHOD at
    # the start. SOLVER.MAX_ITER becomes their sum; other keys of schedules have no effect.
    "SOLVER.STAGES": [],
    # Images in one forward and backward pass of a process; a step averages the gradients of its
    # passes. Fewer need less memory. 0 takes all at once, 1 is the paper's way (sec. 4.1: 4 passes
    # of one image in a step).
    "SOLVER.IMS_PER_PASS": 0,
    # Steps of a training that may be left out because a loss or a gradient is NaN or infinite; one
    # more stops it. 0 stops at the first. Above 0 costs a copy of the weights in memory.
    "SOLVER.SKIP_NON_FINITE": 0,
    # Share that a moving average of the weights keeps in each step, from 0 to below 1, e.g. 0.999;
    # 0 is no average. Where there is one, it is what is evaluated and what a checkpoint gives to
    # all but --resume.
    "SOLVER.EMA_DECAY": 0.0,
    # With ENABLED and CLIP_TYPE "norm": CLIP_VALUE bounds the norm of the whole gradient (sec.
    # 4.1), under any trainer. Detectron2's own "norm" bounds that of each parameter.
    "SOLVER.CLIP_GRADIENTS.FULL_MODEL": False,
    # Whether to use deterministic operators only, so that equal SEEDs give weights that are equal
    # bit for bit (on a GPU as far as PyTorch has such operators; it warns of others).
    "SOLVER.DETERMINISTIC": False,
    # Type of the training steps where SOLVER.AMP.ENABLED: "float16" (GPU) or "bfloat16" (CPU too).
    # Evaluation and TEST.LOSS stay in float32, as in Detectron2.
    "SOLVER.AMP.PRECISION": "float16",
    # Definition of average precision for the headline figures of VOC: "11point" (VOC 2007, as in
    # Table 1) or "area" (from VOC 2010 on). Both are always in the results.
    "TEST.VOC_METRIC": "11point",
    # Also write comp4_det_SPLIT_CLASS.txt for VOC's evaluation server, as is always done for a VOC
    # set without annotations, such as VOC 2012's test set.
    "TEST.VOC_SERVER_FILES": False,
    # Whether to predict and evaluate segmentation too (mean IoU), for a model trained with
    # MODEL.SEG_REGULARIZER_ON and data with label maps.
    "TEST.SEM_SEG": False,
    # Whether evaluations also compute the losses on DATASETS.TEST: "validation/total_loss", ...
    "TEST.LOSS": False,
    # Name of a figure in metrics.json, e.g. "bbox/AP50" (with several test sets "NAME/bbox/AP50"):
    # the weights with its best value go to model_best.pth. Best is the highest value, or the lowest
    # of a loss. "" keeps none.
    "TEST.BEST_METRIC": "",
    # Stop the training after so many evaluations in a row (every TEST.EVAL_PERIOD iterations)
    # without a better TEST.BEST_METRIC; 0 never stops it.
    "TEST.PATIENCE": 0,
    # Number of pictures with detections beside ground truth that each evaluation writes to
    # OUTPUT_DIR/pictures, and in a training to TensorBoard; 0 is none.
    "TEST.NUM_PICTURES": 4,
    # Write OUTPUT_DIR/report.html after the training or --eval-only: tables, curves and pictures.
    "TEST.REPORT": False,
    # Whether to refine boxes at test time: regress again, then vote, the paper's "W" (sec. 4.2).
    "TEST.BOX_REFINEMENT.ENABLED": False,
    # Number of times the boxes pass through the ROI head, at least 1; those of all rounds compete.
    "TEST.BOX_REFINEMENT.ROUNDS": 2,
    # Whether each kept box becomes the mean of the boxes that overlap it, weighted by their scores.
    "TEST.BOX_REFINEMENT.VOTE": True,
    # IoU from which a box votes for a kept one (sec. 4.2: 0.5 for VOC; sec. 4.4: about 0.85, COCO).
    "TEST.BOX_REFINEMENT.VOTE_IOU": 0.5,
    # Whether probabilities and boxes are averaged with those of the mirrored image, for the same
    # proposals (Table 3, post-competition), at double cost; only by MODEL.META_ARCHITECTURE "ION".
    "TEST.FLIP_AVERAGING": False,
    # Seconds for which a process waits for the others, which may be evaluating (Detectron2: 1800).
    "DISTRIBUTED.TIMEOUT": 1800,
    # Project on Weights & Biases to which a training reports, by the package wandb; "" is none.
    "WANDB_PROJECT": "",
}


def add_ion_config(cfg: CfgNode) -> None:
    """Add ION's keys with their defaults to a Detectron2 config, in place.

    Keys that are already there keep their values, so calling it again changes nothing.
    """
    for key, default in _DEFAULTS.items():
        *parents, name = key.split(".")
        node = cfg
        for parent in parents:
            node = node.setdefault(parent, CfgNode())
        node.setdefault(name, copy.deepcopy(default))


def default_of(key: str) -> Any:
    """The default of one of ION's keys."""
    return copy.deepcopy(_DEFAULTS[key])
