"""Files as trees of values and back, for tools/fuzz.py."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

import scipy.io
import torch
import yaml


class Format(NamedTuple):
    """What reads a file's content as a tree of lists and dicts, and what writes it."""

    values: Callable[[bytes], Any]
    content: Callable[[Any], bytes]


def _lines(separator: str) -> Format:
    return Format(
        lambda content: [line.split(separator) for line in content.decode().splitlines()],
        lambda tree: "\n".join(separator.join(map(str, line)) for line in tree).encode(),
    )


def _xml(content: bytes) -> Any:
    def values(element: ET.Element) -> Any:
        return [element.tag, [values(part) for part in element] or element.text]

    return values(ET.fromstring(content))


def _of_xml(tree: Any) -> bytes:
    def text(element: Any) -> str:
        if isinstance(element, list) and len(element) == 2 and isinstance(element[0], str):
            tag, inside = element
            return f"<{tag}>{text(inside)}</{tag}>"
        if isinstance(element, list):
            return "".join(map(text, element))
        return str(element)

    return text(tree).encode()


def _of_json(tree: Any) -> bytes:
    return json.dumps(tree).encode()


def _json_lines(content: bytes) -> Any:
    return [json.loads(line) for line in content.splitlines()]


def _of_json_lines(tree: Any) -> bytes:
    return b"\n".join(map(_of_json, tree))


def _of_yaml(tree: Any) -> bytes:
    return yaml.safe_dump(tree).encode()


def _mat(content: bytes) -> Any:
    read = scipy.io.loadmat(io.BytesIO(content))
    return {key: value for key, value in read.items() if not key.startswith("__")}


def _of_mat(tree: Any) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, tree, do_compression=True)
    return file.getvalue()


def _torch(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), weights_only=False)


def _of_torch(tree: Any) -> bytes:
    file = io.BytesIO()
    torch.save(tree, file)
    return file.getvalue()


def _safetensors(content: bytes) -> Any:
    length = int.from_bytes(content[:8], "little")
    return [json.loads(content[8 : 8 + length]), content[8 + length :].hex()]


def _of_safetensors(tree: Any) -> bytes:
    header = json.dumps(tree[0]).encode()
    return len(header).to_bytes(8, "little") + header + bytes.fromhex(tree[1])


LINES = _lines(" ")
XML = Format(_xml, _of_xml)
JSON = Format(json.loads, _of_json)
JSON_LINES = Format(_json_lines, _of_json_lines)
YAML = Format(yaml.safe_load, _of_yaml)
CSV = _lines(",")
PICKLE = Format(pickle.loads, pickle.dumps)
MAT = Format(_mat, _of_mat)
TORCH = Format(_torch, _of_torch)
SAFETENSORS = Format(_safetensors, _of_safetensors)
BYTES = Format(list, bytes)
