"""Malicious files, made here: each function writes one into a folder and returns what reads it."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import sys
import tarfile
import zipfile
import zlib

import pytest
import torch
from coco_json import write_coco
from PIL import Image
from torch import nn
from voc_folder import annotation_xml, write_image, write_voc

from ion_d2.data.coco_file import read_coco_file
from ion_d2.data.labelme import load_labelme
from ion_d2.data.matlab import load_mat
from ion_d2.data.proposals import read_proposals
from ion_d2.data.readable import check_headers, read_image
from ion_d2.data.sem_seg import read_label_map
from ion_d2.data.voc_xml import parse_annotation
from ion_d2.data.yolo import yolo
from ion_d2.engine.checkpoint import IONCheckpointer
from ion_d2.engine.setup import load_config

CANARY = "canary"
SAMPLES = {}  # name -> (what makes it, words of its refusal)


def sample(words):
    def add(make):
        SAMPLES[make.__name__] = (make, words)
        return make

    return add


class Trap:
    """Makes the canary when it is unpickled."""

    def __init__(self, folder):
        self.place = str(folder / CANARY)

    def __reduce__(self):
        return os.mkdir, (self.place,)


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def loading(path):
    return lambda: IONCheckpointer(nn.Linear(4, 4)).load(str(path))


def command(folder):
    """A line of Python that makes the canary."""
    return f"{sys.executable} -c \"import os; os.mkdir('{folder / CANARY}')\""


# Checkpoints.


@sample("holds Python objects besides tensors")
def code_in_a_checkpoint(folder):
    torch.save({"model": {}, "extra": Trap(folder)}, folder / "a.pth")
    return loading(folder / "a.pth")


@sample("holds Python objects besides tensors")
def code_in_a_file_of_the_model_zoo(folder):
    content = {"model": {}, "__author__": "x", "extra": Trap(folder)}
    return loading(written(folder / "a.pkl", pickle.dumps(content)))


@sample("holds Python objects besides tensors")
def code_in_a_file_of_pycls(folder):
    torch.save({"model_state": {}, "extra": Trap(folder)}, folder / "a.pyth")
    return loading(folder / "a.pyth")


@sample("an archive of the first releases of PyTorch")
def code_in_a_checkpoint_of_the_oldest_format(folder):
    with tarfile.open(folder / "a.pth", "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            info = tarfile.TarInfo(name)
            content = pickle.dumps(Trap(folder))
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return loading(folder / "a.pth")


@sample("would unpack to")
def a_bomb_as_a_checkpoint(folder):
    torch.save({"weight": torch.zeros(1 << 18)}, folder / "whole.pth")
    with zipfile.ZipFile(folder / "whole.pth") as whole:
        with zipfile.ZipFile(folder / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
            for name in whole.namelist():
                archive.writestr(name, whole.read(name) * (16 if "/data/" in name else 1))
    return loading(folder / "a.pth")


@sample("not a readable checkpoint")
def an_archive_in_an_archive(folder):
    torch.save({"weight": torch.zeros(4, 4)}, folder / "inner.pth")
    with zipfile.ZipFile(folder / "a.pth", "w") as archive:
        archive.write(folder / "inner.pth", "archive/data.pkl")
    return loading(folder / "a.pth")


@sample("not a readable checkpoint")
def a_header_longer_than_its_file(folder):
    pytest.importorskip("safetensors")
    return loading(written(folder / "a.safetensors", struct.pack("<Q", 1 << 50) + b"{}"))


@sample("not a readable checkpoint")
def a_header_of_tensors_beyond_the_file(folder):
    pytest.importorskip("safetensors")
    header = {"weight": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
    text = json.dumps(header).encode()
    return loading(written(folder / "a.safetensors", struct.pack("<Q", len(text)) + text))


# Pickles of proposals: the format is the same, and the reader too.


@sample("not a readable pickle")
def code_in_proposals(folder):
    path = written(folder / "a.pkl", pickle.dumps({"ids": [Trap(folder)]}))
    return lambda: read_proposals(path)


@sample("holds a NoneType")
def a_pickle_of_a_thousand_million_memos(folder):
    path = written(folder / "a.pkl", b"\x80\x04Nr" + struct.pack("<I", 1 << 28) + b".")
    return lambda: read_proposals(path)


@sample("not a readable pickle")
def a_pickle_of_an_array_without_an_end(folder):
    text = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(L8000000000L\ntS'd'\ntR"
    text += b"(I1\n(L8000000000L\ntcnumpy\ndtype\n(S'f8'\ntRI0\nS'abc'\ntb"
    path = written(folder / "a.pkl", b"(S'ids'\n" + text + b"S'boxes'\n]S'scores'\n]d.")
    return lambda: read_proposals(path)


@sample("not a readable pickle")
def a_pickle_of_tuples_that_fill_the_stack(folder):
    path = written(folder / "a.pkl", b"\x80\x04}N" + b"\x85" * 300_000 + b"Ns.")
    return lambda: read_proposals(path)


@sample("not a readable pickle")
def a_pickle_that_changes_a_class_of_detectron2(folder):
    text = b"cdetectron2.structures.boxes\nBoxMode\n(N(dS'convert'\nI0\nstb."
    path = written(folder / "a.pkl", text)
    return lambda: read_proposals(path)


@sample("not a readable pickle")
def a_pickle_that_makes_objects_of_numbers(folder):
    text = b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI63\ntb."
    path = written(folder / "a.pkl", text)
    return lambda: read_proposals(path)


# Matlab's files.


def matlab(element):
    return b"MATLAB 5.0".ljust(124) + struct.pack("<HH", 0x0100, 0x4D49) + element


def packed(content):
    content = zlib.compress(content)
    return struct.pack("<II", 15, len(content)) + content


@sample("would unpack to more than 100 times")
def a_bomb_as_a_label_map(folder):
    path = written(folder / "a.mat", matlab(packed(bytes(70 << 20))))
    return lambda: read_label_map(path, 3)


@sample("cells too deep in cells")
def cells_in_cells(folder):
    head = struct.pack("<12I", 6, 8, 1, 0, 5, 8, 1, 1, 1, 0, 0, 0)[:40]
    size, parts = 0, []
    for _ in range(30_000):
        size += len(head) + 8
        parts.append(struct.pack("<II", 14, size - 8) + head)
    path = written(folder / "a.mat", matlab(packed(b"".join(reversed(parts)))))
    return lambda: load_mat(str(path))


@sample("parts of another type")
def numbers_of_a_type_that_there_is_not(folder):
    head = struct.pack("<10I", 6, 8, 6, 0, 5, 8, 1, 1, 1, 0)
    matrix = head + struct.pack("<4I", 200, 8, 0, 0)
    path = written(folder / "a.mat", matlab(struct.pack("<II", 14, len(matrix)) + matrix))
    return lambda: load_mat(str(path))


# XML.


def xml(folder, text):
    path = written(folder / "a.xml", text)
    return lambda: parse_annotation(path)


@sample("declares XML entities")
def a_billion_laughs(folder):
    lines = ['<!ENTITY a0 "ha">']
    lines += [f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10)]
    return xml(folder, f"<!DOCTYPE x [{''.join(lines)}]><annotation>&a9;</annotation>")


@sample("declares XML entities")
def an_entity_from_another_file(folder):
    entity = f'<!DOCTYPE x [<!ENTITY a SYSTEM "file://{folder.parent}/secret">]>'
    return xml(folder, f"{entity}<annotation><folder>&a;</folder></annotation>")


@sample("no <bndbox>")
def elements_in_elements(folder):
    deep = "<object><name>a</name>" * 50_000 + "</object>" * 50_000
    return xml(folder, f"<annotation>{deep}</annotation>")


# JSON and YAML.


@sample("cannot be read as JSON")
def lists_in_lists(folder):
    path = written(folder / "a.json", "[" * 2_000_000)
    return lambda: read_coco_file(path)


@sample("has lists in lists, too deep")
def flows_in_flows(folder):
    path = written(folder / "data.yaml", "names: " + "[" * 20_000)
    return lambda: yolo(f"yolo:{path}:train")


@sample("asks for more than plain values")
def code_in_a_data_file(folder):
    text = f"names: !!python/object/apply:os.system [{json.dumps(command(folder))}]"
    path = written(folder / "data.yaml", text)
    return lambda: yolo(f"yolo:{path}:train")


@sample("asks for more than plain values")
def code_in_a_config(folder):
    text = f"SEED: !!python/object/apply:os.system [{json.dumps(command(folder))}]"
    path = written(folder / "a.yaml", text)
    return lambda: load_config(str(path))


@sample("asks for more than plain values")
def code_in_the_base_of_a_config(folder):
    code_in_a_config(folder)
    path = written(folder / "b.yaml", "_BASE_: a.yaml\n")
    return lambda: load_config(str(path))


@sample("values by its aliases")
def a_config_that_repeats_itself(folder):
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    path = written(folder / "a.yaml", "\n".join([*lines, "MODEL: {WEIGHTS: *a11}"]))
    return lambda: load_config(str(path))


@sample("is a _BASE_ that leads back")
def a_config_that_is_its_own_base(folder):
    path = written(folder / "a.yaml", "_BASE_: a.yaml\n")
    return lambda: load_config(str(path))


@sample("which a _BASE_ names")
def a_base_without_an_end(folder):
    path = written(folder / "a.yaml", "_BASE_: /dev/zero\n")
    return lambda: load_config(str(path))


# Pictures.


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


@sample("cannot identify image file")
def another_file_as_a_picture(folder):
    return coco_naming(folder, "../secret")


@sample("mask that is no picture")
def a_bomb_as_the_mask_of_an_object(folder):
    import base64

    write_image(folder / "a.png")
    mask = base64.b64encode(png(size=(60_000, 60_000))).decode()
    shape = {"label": "a", "shape_type": "mask", "points": [[0, 0], [9, 9]], "mask": mask}
    path = written(
        folder / "a.json", json.dumps({"shapes": [shape], "imagePath": "a.png", "imageData": None})
    )
    return lambda: load_labelme([str(path)], ["a"])


# What is harmless, and read.


def many_frames(folder):
    """A GIF of 2,000 frames: the first is the picture."""
    frames = [Image.new("L", (64, 64), n % 256) for n in range(2000)]
    frames[0].save(folder / "a.gif", save_all=True, append_images=frames[1:])
    return lambda: read_image(str(folder / "a.gif"), "BGR")


def a_list_that_climbs(folder):
    """A split in VOC's layout whose line leads out of the folder."""
    from ion_d2.data.voc_split import read_image_ids

    root = write_voc(folder / "VOC", {"im0": []})
    (root / "ImageSets" / "Main" / "train.txt").write_text("../../secret\n")
    (root / "Annotations" / "secret.xml").write_text(annotation_xml())
    return lambda: read_image_ids(root, "train", {"im0"})


SAMPLES["a_list_that_climbs"] = (a_list_that_climbs, "has no picture ../../secret")
