"""Malicious pictures, and names of pictures; see hostile_helpers."""

from __future__ import annotations

import base64
import gzip
import json
import os
import struct
import zlib

from coco_json import write_coco
from hostile_helpers import CANARY, sample, written
from PIL import Image
from voc_folder import write_image

from ion_d2.data.coco_file import read_coco_file
from ion_d2.data.labelme import load_labelme
from ion_d2.data.readable import check_headers, read_image


def png(*chunks, size=(8, 8)):
    """A PNG of one gray level with further chunks."""
    rows = bytes((size[0] + 1) * size[1]) if size[0] < 100 else b"\0"
    header = struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0)
    every = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in every
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def picture(folder, content, name="a.jpg"):
    path = written(folder / name, content)
    return lambda: read_image(str(path), "BGR")


@sample("decompression bomb")
def a_picture_of_too_many_pixels(folder):
    return picture(folder, png(size=(60_000, 60_000)))


@sample("cannot be decoded")
def a_profile_that_unpacks_without_an_end(folder):
    return picture(folder, png((b"iCCP", b"a\0\0" + zlib.compress(bytes(80 << 20)))))


@sample("cannot be decoded")
def texts_that_unpack_without_an_end(folder):
    bomb = b"a\0\0" + zlib.compress(bytes(80 << 20))
    return picture(folder, png(*[(b"zTXt", bomb)] * 4))


@sample("in the format EPS are not read")
def a_program_of_postscript(folder):
    header = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
    return picture(folder, f"{header}({folder / CANARY}) (w) file closefile showpage\n")


@sample("in the format FITS are not read")
def a_picture_that_unpacks_without_an_end(folder):
    keys = {"SIMPLE": "T", "BITPIX": 8, "NAXIS": 2, "NAXIS1": 8, "NAXIS2": 8}
    cards = "".join(f"{key:8}= {value:>20}".ljust(80) for key, value in keys.items())
    return picture(folder, (cards + "END").ljust(2880).encode() + gzip.compress(bytes(1 << 20)))


@sample("it is not a file")
def a_pipe_as_a_picture(folder):
    os.mkfifo(folder / "a.jpg")
    return lambda: read_image(str(folder / "a.jpg"), "BGR")


def coco_naming(folder, name):
    """A dataset in COCO's format whose picture is somewhere else, and its check."""
    write_coco(folder, [])
    content = json.loads((folder / "all.json").read_text())
    content["images"][0]["file_name"] = name
    path = written(folder / "all.json", json.dumps(content))
    images = read_coco_file(path)["images"]
    records = [{**image, "file_name": str(folder / image["file_name"])} for image in images]
    return lambda: check_headers(records, None, skip_unreadable=False)


@sample("it is not a file")
def a_device_as_a_picture(folder):
    return coco_naming(folder, "/dev/zero")


@sample("in no known format of pictures")
def another_file_as_a_picture(folder):
    return coco_naming(folder, "../secret")


@sample("mask that is no picture")
def a_bomb_as_the_mask_of_an_object(folder):
    write_image(folder / "a.png")
    mask = base64.b64encode(png(size=(60_000, 60_000))).decode()
    shape = {"label": "a", "shape_type": "mask", "points": [[0, 0], [9, 9]], "mask": mask}
    path = written(
        folder / "a.json", json.dumps({"shapes": [shape], "imagePath": "a.png", "imageData": None})
    )
    return lambda: load_labelme(str(path.parent), [str(path)], ["a"])


def many_frames(folder):
    """A GIF of 2,000 frames: the first is the picture."""
    frames = [Image.new("L", (64, 64), n % 256) for n in range(2000)]
    frames[0].save(folder / "a.gif", save_all=True, append_images=frames[1:])
    return lambda: read_image(str(folder / "a.gif"), "BGR")
