"""The rules of tools/check_dataset.py: what a finding means and what to do about it."""

from __future__ import annotations

from typing import Any, NamedTuple

WEIGHTS = ("error", "warning", "note")


class Rule(NamedTuple):
    """What a finding means.

    ``weight`` is "error" for what stops a training or falsifies its figures, "warning" for what is
    left out, cut or learned worse, and "note" for what may be as it should.
    """

    weight: str
    sentence: str
    advice: str


class Finding(NamedTuple):
    """One fault: which rule, in which dataset and where; pictures and boxes show it."""

    rule: str
    dataset: str
    place: str
    pictures: tuple[str, ...] = ()
    boxes: tuple[int, ...] = ()  # places in the annotations of the first picture
    record: dict[str, Any] | None = None  # whose annotations these are


RULES = {
    # The labels as the readers see them.
    "unusable-dataset": Rule(
        "error",
        "The dataset as a whole cannot be used.",
        "Correct what the sentence says; the rest is checked after that.",
    ),
    "unusable-label": Rule(
        "error",
        "A file of labels, or an entry in one, cannot be used.",
        "Correct what the sentence says; a training stops at the first of these.",
    ),
    "unknown-class": Rule(
        "error",
        "An object has a class that is not in the list of classes.",
        "Correct its name, or add the class to classes.txt or data.yaml.",
    ),
    "missing-label": Rule(
        "error",
        "A picture has no labels.",
        "Restore the file of labels (one without objects says that there is none), or take the "
        "picture out of the split. If none has labels, look where the format wants them "
        "(docs/DATA.md).",
    ),
    "unlabeled": Rule(
        "warning",
        "No picture of a dataset has labels.",
        "Nothing, if it is a test set that a server judges; otherwise look where the format wants "
        "the labels (docs/DATA.md).",
    ),
    "listed-twice": Rule(
        "error",
        "A split lists a picture more than once.",
        "Keep one line; otherwise its boxes count twice.",
    ),
    "different-classes": Rule(
        "error",
        "Datasets have different classes, or the same in another order.",
        "Give all the same classes.txt (VOC, labelme), names (YOLO) or categories (COCO).",
    ),
    "unused-class": Rule(
        "warning",
        "In none of the datasets does a class have an object that a training takes.",
        "Label some, or take it out of the list of classes.",
    ),
    "one-split-class": Rule(
        "warning",
        "A class has objects in some of the datasets only.",
        "Divide the pictures anew: what is not trained is not found, what is not tested has no AP.",
    ),
    "no-boxes": Rule(
        "note",
        "A picture has no box.",
        "Label it, if there is an object in it. If there is none, it is a good test picture, and "
        "DATALOADER.FILTER_EMPTY_ANNOTATIONS False trains on it, too.",
    ),
    "nothing-learned": Rule(
        "error",
        "There is nothing to train or test on: no object, or crowds and difficult ones alone.",
        "Label the pictures. Set iscrowd to 0, or export polygons, where a program has written "
        "masks as crowds, as CVAT does; DATASETS.USE_DIFFICULT True trains on what is difficult.",
    ),
    "not-learned": Rule(
        "warning",
        "Some objects are crowds or marked difficult, and a training leaves these out.",
        "Nothing, if it is meant so. Set iscrowd to 0, or export polygons, where a program has "
        "written masks as crowds, as CVAT does; DATASETS.USE_DIFFICULT True trains on what is "
        "difficult.",
    ),
    # Boxes.
    "box-inverted": Rule(
        "warning",
        "The right or bottom of a box lies before its left or top.",
        "Swap the two corners; such boxes are left out, and COCO's are turned.",
    ),
    "box-empty": Rule(
        "warning",
        "A box is a point or a line, a pixel wide or high at most.",
        "Draw it anew or remove it: a training leaves out VOC's, and of other formats those "
        "without width or height, and learns the rest.",
    ),
    "box-outside": Rule(
        "warning",
        "A box reaches more than a pixel beyond its picture.",
        "See whether it belongs to another picture or size; it is cut off at the border.",
    ),
    "box-tiny": Rule(
        "note",
        "A box is less than three pixels wide or high.",
        "Remove it if it is a slip of the hand.",
    ),
    "box-repeated": Rule(
        "warning",
        "A box repeats another one of its picture, with the same class.",
        "Remove one; in an evaluation, the second can only be missed (but of YOLO's repeated lines "
        "the first alone is read).",
    ),
    "no-anchor": Rule(
        "warning",
        "No anchor overlaps the object by the lower of MODEL.RPN.IOU_THRESHOLDS.",
        "Use the better sizes that the summary names, if it does; or a feature of smaller stride "
        "in MODEL.RPN.IN_FEATURES, or larger pictures (INPUT.MIN_SIZE_TRAIN).",
    ),
    "weak-anchor": Rule(
        "note",
        "Most of the objects overlap no anchor by the higher of MODEL.RPN.IOU_THRESHOLDS, so each "
        "is learned from its single best anchor.",
        "Use the better sizes that the summary names, if it does; or add sizes or ratios.",
    ),
    # Pictures.
    "missing-picture": Rule(
        "error",
        "A picture is not there.",
        "Restore it, or take it out of the labels or the split.",
    ),
    "broken-picture": Rule(
        "error",
        "A picture cannot be decoded.",
        "Fetch it again, or leave such pictures out with INPUT.SKIP_UNREADABLE True.",
    ),
    "deep-picture": Rule(
        "error",
        "A picture has more than 8 bits a channel.",
        "Scale its values to 0 to 255 and save it with 8 bits.",
    ),
    "size-differs": Rule(
        "error",
        "The labels give another size than the picture has.",
        "Correct the size in the labels if the boxes fit the picture; if not, the picture was "
        "scaled, turned or exchanged after it was labeled.",
    ),
    "turned-picture": Rule(
        "note",
        "The EXIF data of a picture asks for it to be turned or mirrored.",
        "Look whether the boxes fit: this project turns the picture, some labeling programs do "
        "not. Saving it turned, without that mark, settles it.",
    ),
    "gray-picture": Rule(
        "note",
        "A picture is gray, among others in color.",
        "It is read as three equal channels. Keep it if the model will meet such pictures; else "
        "take it out.",
    ),
    "same-picture": Rule(
        "warning",
        "Two pictures of a dataset have the same bytes.",
        "Keep the one with the better labels.",
    ),
    "leak": Rule(
        "error",
        "Two datasets hold the same picture, byte for byte.",
        "Take it out of one: a test on pictures that were trained on tells nothing.",
    ),
    "similar-picture": Rule(
        "note",
        "Two pictures of a dataset look alike (difference hash).",
        "Look at both; a copy adds nothing.",
    ),
    "similar-leak": Rule(
        "warning",
        "Pictures of two datasets look alike (difference hash).",
        "Look at both; copies, and frames of one video, belong in one of the datasets.",
    ),
    # Label maps.
    "label-map-broken": Rule(
        "error",
        "A segmentation label map cannot be read.",
        "Store one 8-bit class id a pixel, as palette or gray PNG.",
    ),
    "label-map-ids": Rule(
        "error",
        "A segmentation label map holds ids without a class.",
        "0 is the background, 1 the first class, 255 is ignored; correct the map or the classes.",
    ),
    "label-map-size": Rule(
        "error",
        "A segmentation label map has another size than its picture.",
        "Make them of one size.",
    ),
}
