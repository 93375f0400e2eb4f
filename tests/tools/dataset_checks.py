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
