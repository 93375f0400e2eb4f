"""Malicious checkpoints, proposals and Matlab's files; see hostile_helpers."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib

import pytest
import torch
from hostile_helpers import Trap, loading, sample, written

from ion_d2.data.matlab import load_mat
from ion_d2.data.proposals import read_proposals
from ion_d2.data.sem_seg import read_label_map

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
