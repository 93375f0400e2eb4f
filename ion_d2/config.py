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
    _add_timm(root.MODEL)
    _add_context(root.MODEL)
    _add_skip_pooler(root.MODEL)
    _add_box_head(root.MODEL)
    _add_segmentation(root.MODEL)
    # Dropout anywhere in the model. False is row "D" of Tables 1 to 3: neither CONTEXT.DROPOUT nor
    # ROI_BOX_HEAD.FC_DROPOUT has an effect then.
    root.MODEL.DROPOUT_ON = True
    _add_rpn(root.MODEL)
    _add_data(root)
    _add_solver(root)
    _add_test(root)
    root.DISTRIBUTED = CfgNode()
    # Seconds for which a process waits for the others before it gives up. It must exceed what one
    # does while the others wait, such as computing the figures of an evaluation (Detectron2: 1800).
    root.DISTRIBUTED.TIMEOUT = 1800
    # Project on Weights & Biases that a training reports to, beside metrics.json and TensorBoard;
    # it needs the package wandb. "" is none.
    root.WANDB_PROJECT = ""
    return root


def _add_vgg(model: CfgNode) -> None:
    model.VGG = CfgNode()
    # Number of weighted layers of the VGG: 11, 13, 16 or 19. The paper uses 16 (sec. 4.1).
    model.VGG.DEPTH = 16
    # Factor on every channel count (64, 128, 256, 512, 512); below 1 for small models on a CPU.
    model.VGG.WIDTH_MULTIPLIER = 1.0
    # Normalization after each convolution, a name known to Detectron2's get_norm or "BRN" for batch
    # renormalization ("" is none, as in the paper).
    model.VGG.NORM = ""
    # Features the backbone returns, each the last ReLU of its block, of "conv1" (stride 1) to
    # "conv5" (stride 16).
    model.VGG.OUT_FEATURES = ["conv3", "conv4", "conv5"]
    # Factors on conv1 to conv5 at the start of a model with NORM, whose features are all of one
    # amplitude otherwise. Without NORM they differ: in an SSD that began with ImageNet's weights
    # conv4 has a mean of 178 (github.com/weiliu89/caffe issue 254), while pooled conv5 has a norm
    # of 1000 (sec. 5.2), which is 6 an entry. Loaded weights (MODEL.WEIGHTS) bring their own.
    model.VGG.GAINS = [1.0, 1.0, 1.0, 1.0, 1.0]


def _add_timm(model: CfgNode) -> None:
    model.TIMM = CfgNode()
    # Network of the package timm that "build_timm_backbone" makes a backbone of: ResNets,
    # EfficientNets, ConvNeXts, Swins and others, see timm.list_models(). MODEL.BACKBONE.FREEZE_AT
    # is the number of its stages, from the first, that are not trained, with what lies before them.
    model.TIMM.NAME = "resnet50"
    # Weights of the network: a file (.pth or .safetensors) as timm saves it or as the package
    # efficientnet-lite-pytorch has it, "timm" to download timm's own, or "" for random ones. Not
    # read where MODEL.WEIGHTS names a checkpoint of the detector, which brings the backbone's.
    # Weights of ImageNet want INPUT.FORMAT RGB and MODEL.PIXEL_MEAN and PIXEL_STD of their own
    # training, times 255 where those are for pixels up to 1; a warning tells timm's.
    model.TIMM.WEIGHTS = ""
    # Features the backbone returns, "stage1", "stage2", ... as timm counts them: a ResNet or an
    # EfficientNet has five of strides 2, 4, 8, 16 and 32, a ConvNeXt or a Swin four from 4 on.
    model.TIMM.OUT_FEATURES = ["stage2", "stage3", "stage4", "stage5"]
    # Largest stride of a feature, in pixels: stages that would have more are dilated instead, where
    # the network can. 0 leaves its own strides.
    model.TIMM.OUTPUT_STRIDE = 0
    # Whether batch normalization keeps the statistics, scale and shift of the weights everywhere.
    # In stages that are not trained it always does.
    model.TIMM.FREEZE_NORM = True


def _add_context(model: CfgNode) -> None:
    model.CONTEXT = CfgNode()
    # Kind of context block, a name in CONTEXT_REGISTRY: "IRNN" is the paper's (sec. 3.2), "RNN" has
    # torch's own cells; "Conv" and "GlobalAverage" (Table 7) need no recurrence; "Chain" and
    # "Branches" join others.
    model.CONTEXT.NAME = "IRNN"
    # Registered backbone builder that the context block extends.
    model.CONTEXT.BOTTOM_UP = "build_ion_vgg_backbone"
    # Feature of that backbone which feeds the block; the new feature is called "context" (Fig. 2:
    # conv5).
    model.CONTEXT.IN_FEATURE = "conv5"
    # Number of stacked four-directional IRNNs (sec. 3.2: 2, so that every cell sees every other),
    # or of the layers of "Conv".
    model.CONTEXT.NUM_STACKS = 2
    # Channels of each directional hidden state (Table 8: 512), or of each layer of "Conv" but the
    # last.
    model.CONTEXT.HIDDEN_DIM = 512
    # Channels of the context feature (Fig. 2: 512).
    model.CONTEXT.OUT_DIM = 512
    # Hidden-to-hidden transition: "full" matrix (Eq. 1), "diagonal" (one weight a channel),
    # "identity" (Eq. 2), or "max", the largest value so far instead of a sum, for cues of a few
    # cells (not the paper's; it has no ONNX export).
    model.CONTEXT.TRANSITION = "full"
    # Start of the block's 1x1 convolutions, on which the paper is silent: "xavier", or
    # "pass_through", which hands the feature and then the mean of the four directions on unchanged,
    # or "rows_then_columns", with the mean of the two horizontal and then the two vertical ones.
    model.CONTEXT.INIT = "xavier"
    # Normalization behind each convolution of "IRNN" and "Conv", and of "GlobalAverage": ""
    # (the paper's) or "BRN", batch renormalization (docs/STUDY.md: it lets short trainings from
    # random weights learn what is far away).
    model.CONTEXT.NORM = ""
    # Start of the biases of the convolutions that feed a recurrence, in units of their output.
    # Below 0, what is common everywhere (the background) does not add up along a sweep.
    model.CONTEXT.BIAS_INIT = 0.0
    # Dropout probability after each concatenation of the four directions (sec. 3.2: 0.25).
    model.CONTEXT.DROPOUT = 0.25
    # Directions of travel in each stack, of "right", "left", "down" and "up"; the last list serves
    # all further stacks. Table 9a: [["left", "right"], ["up", "down"]].
    model.CONTEXT.DIRECTIONS = [["right", "left", "down", "up"]]
    # Whether the directions of an "IRNN" stack share their input-to-hidden 1x1 convolution (sec.
    # 3.2: they do, at a cost of 0.1 mAP).
    model.CONTEXT.SHARED_INPUT = True
    # Whether each direction of an "IRNN" learns a bias b0 for its first step (sec. 3.2: it stays
    # near 0).
    model.CONTEXT.FIRST_STEP_BIAS = False
    # Return the earlier stacks of "IRNN" as well, as features "context1", ... for
    # MODEL.ROI_HEADS.IN_FEATURES (Table 9b). Each is what the next stack is fed, after a ReLU.
    model.CONTEXT.ALL_STACKS = False
    # Cell of "RNN": "tanh", "gru" or "lstm" (sec. 3.2 names them; none was tried).
    model.CONTEXT.CELL = "gru"
    # Side of the kernels of "Conv", in cells, odd (Table 7: 3 with 512 channels, 5 with 256).
    model.CONTEXT.KERNEL_SIZE = 3
    # Context blocks that "Chain" runs one after another, or "Branches" side by side: the first
    # gives "context", a further one, say "Conv", gives "context_conv" (Table 9c).
    model.CONTEXT.PARTS = []


def _add_skip_pooler(model: CfgNode) -> None:
    model.SKIP_POOLER = CfgNode()
    # L2 normalization of each pooled feature: "roi" over all its entries, "position" across the
    # channels at each bin, or "none" (sec. 5.2).
    model.SKIP_POOLER.NORM = "roi"
    # Start of the per-channel scale after normalization (sec. 3.1: 1000, the mean norm of pooled
    # conv5 in Caffe's VGG16; about 130 goes with "position"). 0 measures that norm on the first
    # training passes instead, which other weights need, torchvision's VGG16 among them.
    model.SKIP_POOLER.SCALE_INIT = 1000.0
    # Whether the scale is learned (sec. 5.2: makes no difference).
    model.SKIP_POOLER.LEARN_SCALE = True
    # Training passes (batches, or their parts under SOLVER.IMS_PER_PASS) over which SCALE_INIT 0
    # averages the norm, before the scale is set to the mean.
    model.SKIP_POOLER.SCALE_BATCHES = 8
    # How context joins the other features: "concat", which the 1x1 convolution then merges (sec.
    # 3.1), or "residual", added to the deepest of them, normalized and scaled like it, times a
    # learned gate. That needs as many channels (MODEL.CONTEXT.OUT_DIM), and hands on what the
    # context block keeps of the feature it reads (not the paper's; docs/PHOTOGRAPHS.md).
    model.SKIP_POOLER.CONTEXT = "concat"
    # Start of the share of context: with "concat" a factor on its weights in the merging
    # convolution (1: as those of the others, 0: as if there was no context), with "residual" the
    # gate.
    model.SKIP_POOLER.CONTEXT_GAIN = 1.0
    # Channels after the 1x1 convolution that merges the features (sec. 3.1: 512, what fc6 of VGG16
    # expects). IONRes5ROIHeads takes as many as res5 reads instead.
    model.SKIP_POOLER.OUT_CHANNELS = 512


def _add_box_head(model: CfgNode) -> None:
    model.ROI_BOX_HEAD = CfgNode()
    # Dropout probability after fc6 and fc7 of IONBoxHead (Fast R-CNN, and so the paper: 0.5).
    model.ROI_BOX_HEAD.FC_DROPOUT = 0.5
    # Standard deviation of the weights of IONROIHeads' class scores at the start (Fast R-CNN, and
    # so the paper: 0.01). New heads on a trained backbone with ten times that learn sooner what
    # context alone tells apart (docs/STUDY.md).
    model.ROI_BOX_HEAD.CLS_INIT_STD = 0.01
    # Bins per side at each level of the spatial pyramid of SPPROIHeads (SPPnet: 6, 3, 2 and 1).
    model.ROI_BOX_HEAD.PYRAMID_LEVELS = [6, 3, 2, 1]


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
    # Factor on the class scores' weights of IONSegHead at the start (1: Xavier's; FCN starts its
    # scores at 0). In short trainings, context behind scores of full size learned later what is
    # far away, or not at all (docs/STUDY.md).
    model.SEM_SEG_HEAD.INIT_GAIN = 1.0


def _add_rpn(model: CfgNode) -> None:
    model.RPN = CfgNode()
    # Kernel sizes in cells, odd, of the parallel convolutions of MODEL.RPN.HEAD_NAME "IONRPNHead",
    # the RPN head of the 2015 COCO competition (supplement: 3 and 5).
    model.RPN.MIXED_KERNELS = [3, 5]
    # Channels of each of them; they are concatenated (supplement: 384 and 128).
    model.RPN.MIXED_CHANNELS = [384, 128]
    model.ANCHOR_GENERATOR = CfgNode()
    # Sides in pixels of square anchors beside those of SIZES and ASPECT_RATIOS, for each feature of
    # MODEL.RPN.IN_FEATURES or, as one list, for all; with NAME "IONAnchorGenerator" (supplement:
    # 32).
    model.ANCHOR_GENERATOR.SQUARE_SIZES = [[32]]


def _add_data(root: CfgNode) -> None:
    root.DATASETS = CfgNode()
    # Train on boxes marked difficult as well (Fast R-CNN, and so the paper, leaves them out).
    # VOC-format data only.
    root.DATASETS.USE_DIFFICULT = False
    # Folders of label maps for images without one of their own (VOC's SegmentationClass); the first
    # that has one wins. A plain name is a folder beside the images' folder, anything with "/" a
    # path. Label maps are ID.png (class ids, 255 ignored) or SBD's ID.mat.
    root.DATASETS.SEM_SEG_DIRS = ()
    root.INPUT = CfgNode()
    # Leave out pictures that cannot be decoded, with a warning that names each, instead of
    # stopping.
    root.INPUT.SKIP_UNREADABLE = False


def _add_solver(root: CfgNode) -> None:
    root.SOLVER = CfgNode()
    # Stages of the training, one mapping each (sec. 4.1 has two); empty for Detectron2's schedules.
    # MAX_ITER: iterations. BASE_LR, END_LR (default BASE_LR): the learning rate falls exponentially
    # from one to the other. FREEZE_AT (default MODEL.BACKBONE.FREEZE_AT): first blocks of the
    # backbone that rest. WARMUP_ITERS (default 0): iterations of SOLVER.WARMUP_METHOD at the start.
    # SOLVER.MAX_ITER becomes their sum; SOLVER.BASE_LR and the other keys of schedules have no
    # effect.
    root.SOLVER.STAGES = []
    # Images in one forward and backward pass of a process; gradients of a step's passes are
    # averaged. 0 takes all at once, 1 is the paper's way (sec. 4.1: 4 passes of one image a step).
    root.SOLVER.IMS_PER_PASS = 0
    # Share of itself that the moving average of the weights keeps in a step, e.g. 0.999; 0 has no
    # average. The average is what is evaluated and what a checkpoint gives to any but --resume.
    root.SOLVER.EMA_DECAY = 0.0
    root.SOLVER.CLIP_GRADIENTS = CfgNode()
    # With ENABLED and CLIP_TYPE "norm": CLIP_VALUE bounds the norm of the whole gradient (sec.
    # 4.1), under Detectron2's trainers as well. Their own "norm" bounds that of each parameter.
    root.SOLVER.CLIP_GRADIENTS.FULL_MODEL = False
    # Use deterministic operators only, so that equal SEEDs give weights that are equal bit for bit
    # (on a GPU: as far as PyTorch has them; it warns of others).
    root.SOLVER.DETERMINISTIC = False
    root.SOLVER.AMP = CfgNode()
    # What the steps of a training compute in under SOLVER.AMP.ENABLED: "float16" (on a GPU) or
    # "bfloat16" (on a CPU too). Evaluation and TEST.LOSS stay in float32, as in Detectron2.
    root.SOLVER.AMP.PRECISION = "float16"


def _add_test(root: CfgNode) -> None:
    root.TEST = CfgNode()
    # Average precision that the headline VOC figures use: "11point" (VOC2007, as in Table 1) or
    # "area" (VOC2010 on). Both are always reported.
    root.TEST.VOC_METRIC = "11point"
    # Also write comp4_det_SPLIT_CLASS.txt, which the evaluation server of VOC takes. A VOC set
    # without annotations, such as VOC 2012's test set, gives these files (and no AP) anyway.
    root.TEST.VOC_SERVER_FILES = False
    # Predict and evaluate segmentation too, where the model has the head and the dataset has labels
    # (mean IoU).
    root.TEST.SEM_SEG = False
    # Compute the losses on DATASETS.TEST in each evaluation, as validation/total_loss,
    # validation/loss_cls, ... of metrics.json.
    root.TEST.LOSS = False
    # Figure of the evaluation, by its name in metrics.json, e.g. "bbox/AP50" (several test sets:
    # "NAME/bbox/AP50"), whose best weights go to model_best.pth; "" keeps none. Higher is better;
    # of the losses under "validation/", lower.
    root.TEST.BEST_METRIC = ""
    # Stop the training after so many evaluations in a row, TEST.EVAL_PERIOD iterations apart, in
    # which TEST.BEST_METRIC did not improve; 0 never stops.
    root.TEST.PATIENCE = 0
    # Pictures of detections beside ground truth written to OUTPUT_DIR/pictures, and in training to
    # TensorBoard, after each evaluation; 0 is none.
    root.TEST.NUM_PICTURES = 4
    # Write report.html into OUTPUT_DIR after the training or --eval-only: tables, curves, pictures
    # of detections and of what the model looks at, in one file.
    root.TEST.REPORT = False
    root.TEST.BOX_REFINEMENT = CfgNode()
    # Two-round box regression with weighted voting, the paper's "W" (sec. 4.2).
    root.TEST.BOX_REFINEMENT.ENABLED = False
    # Number of times the boxes pass through the ROI head; the boxes of all rounds compete.
    root.TEST.BOX_REFINEMENT.ROUNDS = 2
    # Whether each kept box becomes the score-weighted mean of the boxes that overlap it.
    root.TEST.BOX_REFINEMENT.VOTE = True
    # IoU from which a box votes for a kept one (sec. 4.2: 0.5 on VOC; sec. 4.4: about 0.85 on
    # COCO).
    root.TEST.BOX_REFINEMENT.VOTE_IOU = 0.5
    # Average probabilities and boxes with those of the mirrored image, for the same proposals
    # (Table 3, post-competition). Doubles the cost of an image. Meta-architecture "ION" only.
    root.TEST.FLIP_AVERAGING = False
