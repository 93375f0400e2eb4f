import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.structures import BoxMode
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ion_d2.data.instance_masks import clean_mask, decode_mask, draw_label_map
from ion_d2.errors import IONError

H, W = 12, 16


def runs_of(mask):
    """Run lengths down the columns, zeros first, counted pixel by pixel."""
    counts, value = [0], 0
    for pixel in mask.ravel(order="F"):
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def rle(mask):
    return {"size": list(mask.shape), "counts": runs_of(mask)}


def compressed(mask, text=False):
    encoded = mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))
    counts = encoded["counts"].decode() if text else encoded["counts"]
    return {"size": list(mask.shape), "counts": counts}


def box_mask(x0, y0, x1, y1):
    mask = np.zeros((H, W), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def polygon(x0, y0, x1, y1):
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def instance(segmentation, category_id=0, bbox=(0, 0, W, H), **more):
    annotation = {"category_id": category_id, "bbox": list(bbox), "bbox_mode": BoxMode.XYXY_ABS}
    return {**annotation, "segmentation": segmentation, **more}


def draw(*annotations, classes=4):
    return draw_label_map(annotations, H, W, classes, image="photo.jpg")


@settings(max_examples=150, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_run_lengths_in_all_three_forms(mask):
    for segmentation in (rle(mask), compressed(mask), compressed(mask, text=True)):
        np.testing.assert_array_equal(decode_mask(segmentation, *mask.shape), mask)


def test_long_and_short_runs_of_a_large_mask():
    """Differences between run lengths that are negative, and that need four characters."""
    mask = np.zeros((700, 900), dtype=bool)
    mask[:, 300:800] = True
    mask[5, 100], mask[600, 450] = True, False
    for segmentation in (rle(mask), compressed(mask)):
        np.testing.assert_array_equal(decode_mask(segmentation, 700, 900), mask)


def test_polygons_with_whole_corners_are_exact():
    two = [*polygon(2, 3, 9, 7), *polygon(11, 0, 16, 12)]
    expected = box_mask(2, 3, 9, 7) | box_mask(11, 0, 16, 12)
    np.testing.assert_array_equal(decode_mask(two, H, W), expected)


def test_polygons_agree_with_opencv_but_for_their_outline():
    angles = np.sort(np.random.default_rng(0).uniform(0, 2 * np.pi, 9))
    corners = 100 + 80 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    empty, whole = np.zeros((200, 200), np.uint8), [corners.round().astype(np.int32)]
    filled = cv2.fillPoly(empty.copy(), whole, 1)
    outline = cv2.polylines(empty.copy(), whole, True, 1, thickness=3)
    mine = decode_mask([corners.ravel().tolist()], 200, 200)
    assert mine.sum() > 10_000
    np.testing.assert_array_equal(mine[outline == 0], filled[outline == 0].astype(bool))


def test_small_objects_lie_on_large_ones_in_any_order():
    large, small = instance(polygon(0, 0, 14, 10), 0), instance(rle(box_mask(3, 3, 6, 6)), 2)
    expected = np.where(box_mask(3, 3, 6, 6), 3, np.where(box_mask(0, 0, 14, 10), 1, 0))
    for order in ((large, small), (small, large)):
        labels = draw(*order)
        assert labels.dtype == np.uint8
        np.testing.assert_array_equal(labels, expected)


def test_a_mask_of_more_pixels_than_a_picture_has_is_refused():
    """pycocotools would take gigabytes, or write to none and end the process."""
    for segmentation in ([[1, 2, 9, 2, 9, 9]], {"size": [30, 2**31], "counts": [30 * 2**31]}):
        for reader in (decode_mask, clean_mask):
            with pytest.raises(ValueError, match="30 x 2147483648 pixels"):
                reader(segmentation, 30, 2**31)


def test_crowds_and_objects_without_a_mask_are_ignored_where_no_object_is():
    crowd = instance(compressed(box_mask(0, 0, 8, 8)), 1, iscrowd=1)
    unmasked = instance(None, 3, bbox=(9.5, 4.2, 13.1, 99))
    person = instance(polygon(4, 4, 12, 12), 0)
    expected = np.zeros((H, W), dtype=int)
    expected[0:8, 0:8] = 255
    expected[4:12, 9:14] = 255
    expected[4:12, 4:12] = 1
    for order in ((crowd, unmasked, person), (person, unmasked, crowd)):
        np.testing.assert_array_equal(draw(*order), expected)
    assert draw(unmasked) is None
    assert draw() is None
    assert draw(instance([])) is None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_against_pixel_by_pixel(seed):
    rng = np.random.default_rng(seed)
    masks = [rng.random((H, W)) < rng.random() for _ in range(5)]
    classes, crowds = rng.integers(0, 3, 5), rng.random(5) < 0.3
    forms = [(rle, compressed)[i] for i in rng.integers(0, 2, 5)]
    drawn = zip(forms, masks, classes, crowds)
    labels = draw(*(instance(form(m), int(c), iscrowd=int(crowd)) for form, m, c, crowd in drawn))
    for y in range(H):
        for x in range(W):
            here = [i for i in range(5) if masks[i][y, x]]
            objects = [i for i in here if not crowds[i]]
            expected = 255 if here else 0
            if objects:
                expected = 1 + classes[min(objects, key=lambda i: (masks[i].sum(), -i))]
            assert labels[y, x] == expected


def runs(*counts):
    return [{"size": [H, W], "counts": each} for each in counts]


BROKEN = {
    rf"have the size \[{W}, {H}\], not \[{H}, {W}\]": [rle(np.zeros((W, H)))],
    rf"have the size \[{H}, {W + 1}\]": [compressed(np.zeros((H, W + 1)))],
    "have the size None": [{"counts": [H * W]}],
    "cover 180 pixels, not 12 x 16 = 192": runs([90, 90]),
    "cover 193 pixels": runs([90, 103]),
    "cover 192 pixels": runs([200, -8]),
    "cannot be decoded": [{"size": [H, W]}, *runs(["many"], "", "~~", "\u00e9", "o" * 40 + "0")],
    "cover|decoded": runs(compressed(box_mask(0, 0, 8, 12))["counts"][:-1]),
    "neither a list of polygons nor run lengths": ["text", ((1, 1, 5, 5, 9, 9),)],
    "has 4 numbers": [[[1, 1, 5, 5]]],
    "has 7 numbers": [[[1, 1, 5, 5, 9, 9, 3]]],
    "far outside": [[[1, 1, 5, number, 9, 9]] for number in (float("nan"), 1e12)],
    "not a list of numbers": [[7], [["a"] * 6]],
}
# Which nothing is left of where polygons without an area are dropped.
POINTS = [[1, 1], [5, 1], [5, 5]]


@pytest.mark.parametrize(
    ("segmentation", "words"), [(mask, words) for words, masks in BROKEN.items() for mask in masks]
)
def test_broken_masks_name_the_image(segmentation, words):
    with pytest.raises(IONError, match=rf"photo\.jpg .*{words}"):
        draw(instance(segmentation))


@pytest.mark.parametrize("category_id", [3, -1, 80])
def test_a_class_without_an_id_names_the_image(category_id):
    with pytest.raises(IONError, match=rf"photo\.jpg .*class id {category_id}, but only 0\.\.2"):
        draw(instance(polygon(1, 1, 5, 5), category_id))


def test_a_list_of_points_is_no_polygon_too_many():
    with pytest.raises(ValueError, match=r"a list of points \(x, y\), not of polygons"):
        clean_mask(POINTS, H, W)
    assert clean_mask([[], [1, 1], [1, 1, 5, 5]], H, W) is None
