"""Runs of tools/check_dataset.py."""

import contextlib
import io
import json

from cli_helpers import load_tool
from detectron2.data import DatasetCatalog, MetadataCatalog

SIZE = (96, 72)


def check(folder, *arguments):
    """Exit status, output, and what the places of the findings say by rule."""
    file, output = folder / "out/found.json", io.StringIO()
    catalogs = dict(DatasetCatalog.data), dict(MetadataCatalog.data)
    with contextlib.redirect_stdout(output):
        code = load_tool("check_dataset").main([*map(str, arguments), "--json", str(file)])
    DatasetCatalog.data, MetadataCatalog.data = catalogs
    places = {}
    for finding in json.loads(file.read_text())["findings"]:
        places.setdefault(finding["rule"], []).extend(p["place"] for p in finding["places"])
    return code, output.getvalue(), places


def write_coco(folder, *objects):
    """Pictures of the names a, b, ... in COCO's format, one for each object; the dataset."""
    size = {"width": SIZE[0], "height": SIZE[1]}
    ids = range(1, len(objects) + 1)
    images = [{"id": i, "file_name": f"{chr(96 + i)}.png", **size} for i in ids]
    common = {"category_id": 1, "bbox": [5, 5, 30, 30]}
    boxes = [{"id": i, "image_id": i, **common, **found} for i, found in zip(ids, objects)]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (folder / "all.json").write_text(json.dumps(content))
    return f"coco:{folder}/all.json:{folder}"
