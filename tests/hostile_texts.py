"""Malicious labels, lists, data files and configs; see hostile_helpers."""

from __future__ import annotations

import json

from hostile_helpers import command, sample, written
from voc_folder import annotation_xml, write_voc

from ion_d2.data.coco_file import read_coco_file
from ion_d2.data.voc_split import read_image_ids
from ion_d2.data.voc_xml import parse_annotation
from ion_d2.data.yolo import yolo
from ion_d2.engine.setup import load_config

# XML, and VOC's lists.


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


@sample("has no picture ../../secret")
def a_list_that_climbs(folder):
    """A split in VOC's layout whose line leads out of the folder."""
    root = write_voc(folder / "VOC", {"im0": []})
    (root / "ImageSets" / "Main" / "train.txt").write_text("../../secret\n")
    (root / "Annotations" / "secret.xml").write_text(annotation_xml())
    return lambda: read_image_ids(root, "train", {"im0"})


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
