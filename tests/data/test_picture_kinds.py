"""Pictures of every kind: what the mapper and demo.py make of them, or how they are refused."""

from __future__ import annotations

import os
import struct

import numpy as np
import pytest
from detectron2.structures import BoxMode
from hostile_pictures import png
from PIL import Image
from refusals import refused

from ion_d2.data.mapper import IONDatasetMapper
from ion_d2.data.readable import read_image

RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 255, 0)
# Gray of red and blue by ITU-R 601: 0.299 and 0.114 of 255.
GRAYS = ((76, 76, 76), (29, 29, 29))


def halves(width=16, height=8):
    """Red on the left, blue on the right."""
    picture = Image.new("RGB", (width, height), BLUE)
    picture.paste(Image.new("RGB", (width // 2, height), RED), (0, 0))
    return picture


def saved(name, mode="RGB", picture=None, **options):
    """A function that saves a picture in a folder, under a name that need not fit."""

    def save(folder):
        kind = options.pop("format", Image.registered_extensions().get(os.path.splitext(name)[1]))
        if kind not in Image.SAVE:
            pytest.skip(f"this Pillow does not write {name}")
        (picture or halves()).convert(mode).save(folder / name, kind, **options)
        return folder / name

    return save


def array(name, values):
    def save(folder):
        Image.fromarray(values).save(folder / name)
        return folder / name

    return save


def cut(folder):
    path = saved("a.jpg", quality=95)(folder)
    path.write_bytes(path.read_bytes()[:-60])
    return path


def raw(content):
    """A function that writes the bytes of a PNG."""

    def save(folder):
        (folder / "a.png").write_bytes(content)
        return folder / "a.png"

    return save


def animated(name):
    frames = [halves(), Image.new("RGB", (16, 8), GREEN)]
    return saved(name, picture=frames[0], save_all=True, append_images=frames[1:], lossless=True)


def see_through(folder):
    """Transparent pixels keep the color that they have."""
    picture = halves().convert("RGBA")
    picture.putalpha(0)
    picture.save(folder / "a.png")
    return folder / "a.png"


# What is there on the left and on the right.
READ = {
    "AVIF": (saved("a.avif", quality=100), (RED, BLUE)),
    "BMP": (saved("a.bmp"), (RED, BLUE)),
    "GIF, animated": (animated("a.gif"), (RED, BLUE)),
    "ICO": (saved("a.ico", sizes=[(16, 8)]), (RED, BLUE)),
    "JPEG": (saved("a.jpg", quality=95), (RED, BLUE)),
    "JPEG 2000": (saved("a.jp2"), (RED, BLUE)),
    "JPEG, CMYK": (saved("a.jpg", "CMYK", quality=95), (RED, BLUE)),
    "JPEG, gray": (saved("a.jpg", "L", quality=95), GRAYS),
    "JPEG, progressive": (saved("a.jpg", progressive=True, quality=95), (RED, BLUE)),
    "MPO": (saved("a.mpo", quality=95), (RED, BLUE)),
    "PCX": (saved("a.pcx"), (RED, BLUE)),
    "PNG": (saved("a.png"), (RED, BLUE)),
    "PNG, 1 bit": (saved("a.png", "1", Image.new("L", (16, 8), 255)), ((255,) * 3,) * 2),
    "PNG, animated": (animated("a.png"), (RED, BLUE)),
    "PNG, gray": (saved("a.png", "L"), GRAYS),
    "PNG, gray and transparent": (saved("a.png", "LA"), GRAYS),
    "PNG, palette": (saved("a.png", "P"), (RED, BLUE)),
    "PNG, transparent": (see_through, (RED, BLUE)),
    "PPM": (saved("a.ppm"), (RED, BLUE)),
    "SGI": (saved("a.sgi"), (RED, BLUE)),
    "TGA": (saved("a.tga"), (RED, BLUE)),
    "TIFF": (saved("a.tif"), (RED, BLUE)),
    "TIFF, packed": (saved("a.tif", compression="tiff_lzw"), (RED, BLUE)),
    "WebP": (saved("a.webp", lossless=True), (RED, BLUE)),
    "a PNG that is called .jpg": (saved("a.jpg", format="PNG"), (RED, BLUE)),
    "a JPEG that is called .png": (saved("a.png", format="JPEG", quality=95), (RED, BLUE)),
    "a TIFF that is called .jpg": (saved("a.jpg", format="TIFF"), (RED, BLUE)),
    "1 x 1": (saved("a.png", picture=Image.new("RGB", (1, 1), RED)), (RED, RED)),
    "1 x 2000": (saved("a.png", picture=Image.new("RGB", (1, 2000), BLUE)), (BLUE, BLUE)),
    "2000 x 1": (saved("a.png", picture=halves(2000, 1)), (RED, BLUE)),
}
REFUSED = {
    "16 bits, PNG": (array("a.png", np.full((8, 16), 999, np.uint16)), "more than 8 bits"),
    "16 bits, TIFF": (array("a.tif", np.full((8, 16), 999, np.uint16)), "more than 8 bits"),
    "32 bits": (array("a.tif", np.full((8, 16), 999, np.int32)), "more than 8 bits"),
    "numbers of floating point": (array("a.tif", np.ones((8, 16), np.float32)), "more than 8 bits"),
    # A header of other bits than Pillow knows.
    "3 bits": (
        raw(png().replace(struct.pack(">IIB", 8, 8, 8), struct.pack(">IIB", 8, 8, 3))),
        "cannot be decoded",
    ),
    "truncated": (cut, "cannot be decoded"),
    "20,000 x 20,000": (raw(png(size=(20_000, 20_000))), "decompression bomb"),
}


def mapped(path, width, height, box=(0, 0, 1, 1)):
    """A picture as the training sees it, (H, W, 3) in BGR, and its box."""
    found = {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    record = {"file_name": str(path), "width": width, "height": height, "annotations": [found]}
    mapper = IONDatasetMapper(True, augmentations=[], image_format="BGR", num_label_ids=None)
    result = mapper(record)
    return result["image"].permute(1, 2, 0).numpy(), result["instances"].gt_boxes.tensor[0].numpy()


@pytest.mark.parametrize("kind", READ)
def test_it_is_seen_alike_by_the_training_and_the_demo(tmp_path, kind):
    write, colors = READ[kind]
    path = write(tmp_path)
    image = read_image(str(path), "BGR")
    height, width = image.shape[:2]
    assert image.dtype == np.uint8
    corners = image[0, 0, ::-1], image[-1, -1, ::-1]
    np.testing.assert_allclose(corners, np.array(colors), atol=3)
    np.testing.assert_array_equal(mapped(path, width, height)[0], image)


@pytest.mark.parametrize("kind", REFUSED)
def test_it_is_refused_in_one_sentence(tmp_path, kind):
    write, words = REFUSED[kind]
    path = write(tmp_path)
    with refused(path, words):
        read_image(str(path), "BGR")
    with refused(path, words):
        mapped(path, 16, 8)


# How a camera that is held in each of the eight ways stores an upright picture (EXIF 2.3, tag 274):
# which sides of the upright picture its first row and first column are.
STORED = {
    1: lambda upright: upright,  # top, left
    2: lambda upright: upright[:, ::-1],  # top, right
    3: lambda upright: upright[::-1, ::-1],  # bottom, right
    4: lambda upright: upright[::-1],  # bottom, left
    5: lambda upright: upright.transpose(1, 0, 2),  # left, top
    6: lambda upright: upright[:, ::-1].transpose(1, 0, 2),  # right, top
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),  # right, bottom
    8: lambda upright: upright[::-1].transpose(1, 0, 2),  # left, bottom
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_boxes_lie_on_the_upright_picture(tmp_path, orientation, suffix):
    upright = np.zeros((20, 30, 3), np.uint8)
    upright[2:7, 11:28] = GREEN
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a{suffix}"
    stored = np.ascontiguousarray(STORED[orientation](upright))
    Image.fromarray(stored).save(path, exif=exif)
    image, box = mapped(path, 30, 20, (11, 2, 28, 7))
    np.testing.assert_array_equal(image, upright[:, :, ::-1])
    np.testing.assert_array_equal(box, [11, 2, 28, 7])
    with refused(path, "is 30x20 pixels (turned as its EXIF data asks)", "says 20x30"):
        mapped(path, 20, 30)
