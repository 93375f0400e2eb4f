"""The HTML page of tools/check_dataset.py: findings with the pictures that they are about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dataset_labels import Dataset
from dataset_rules import RULES, Finding

from ion_d2.data.readable import read_image
from ion_d2.engine.drawing import Marks, class_color, draw_panel
from ion_d2.engine.pictures import truth_of
from ion_d2.errors import IONError
from ion_lab.report import Bar, Figure, Listing, Picture, Section, Table, Text, bars_plot
from ion_lab.report.heatmap import encode

# Pictures of each rule, and the longer side of one in pixels.
_MOST, _SIDE = 12, 360
# So many places are not folded away, and so many are listed.
_FEW, _LINES = 3, 1000


def page_sections(
    datasets: Sequence[Dataset],
    groups: dict[tuple[str, str], list[Finding]],
    tables: Sequence[Table],
    sentences: Sequence[str],
) -> list[Any]:
    """The sections of the page: what was found, the contact sheet, and what was counted."""
    rows = [
        [RULES[rule].weight, rule, dataset, f"{len(found):,}", RULES[rule].advice]
        for (rule, dataset), found in groups.items()
    ]
    headers = ["weight", "rule", "dataset", "count", "what to do"]
    table = Table("What was found, the gravest first.", headers, rows, text_columns=5)
    summary = [table] if rows else [Text(["Nothing was found."])]
    plots = [_class_plot(dataset) for dataset in datasets if len(dataset.objects.box)]
    counted = [Figure(plots, "Objects of each class.")] if plots else []
    sheets = [_sheet(datasets, *key, found) for key, found in groups.items()]
    return [
        Section("Findings", summary),
        *([Section("Where", sheets)] if sheets else ()),
        Section("Counts", [*counted, *tables, Text(list(sentences))]),
    ]


def _class_plot(dataset: Dataset) -> Picture:
    counts = dataset.counts.most_common()
    bars = [Bar(f"{name}: {count:,}", count) for name, count in counts]
    told = ", ".join(f"{count} {name}" for name, count in counts)
    return Picture(bars_plot(bars, "objects").svg(), f"Bars: {told}.", dataset.name)


def _sheet(datasets: Sequence[Dataset], rule: str, name: str, found: Sequence[Finding]) -> Section:
    """Some of the pictures that break a rule, and all places as text."""
    own_last = sorted(datasets, key=lambda dataset: dataset.name == name)
    records = {r["file_name"]: r for dataset in own_last for r in dataset.records}
    classes = next((d.classes for d in datasets if d.name == name), [])
    parts: list[Any] = [Text([f"{RULES[rule].sentence} {RULES[rule].advice}"])]
    pictures, shown = [], set()
    for finding in found:
        if len(pictures) < _MOST:
            for picture, labels in _draw(finding, records, classes):
                pictures.append(picture)
                shown |= labels
    if pictures:
        legend = [(classes[label], class_color(label)) for label in sorted(shown)]
        caption = "The boxes in question, or else all of the picture."
        parts.append(Figure(pictures, caption, width=240, legend=legend))
    places = [finding.place for finding in found]
    if len(places) > _LINES:
        places[_LINES:] = [f"... and {len(places) - _LINES:,} more (--json FILE has all)"]
    if len(places) <= _FEW:
        parts.append(Text(places))
    else:
        parts.append(Listing(f"All {len(found):,} places", "\n".join(places)))
    return Section(f"{rule} ({RULES[rule].weight}) in {name}", parts)


def _draw(
    finding: Finding, records: dict[str, Any], classes: Sequence[str]
) -> Iterator[tuple[Picture, set[int]]]:
    """The pictures of a finding, with their labels; none of those that cannot be decoded."""
    for number, name in enumerate(finding.pictures):
        try:
            image = read_image(name, "RGB")
        except IONError:
            continue  # which is a finding of its own
        record = records[name]
        if finding.record is not None and not number:
            annotations = [finding.record["annotations"][index] for index in finding.boxes]
            record = {**record, "annotations": annotations}
        marks = _in_order(truth_of(record), len(classes))
        drawn = encode(draw_panel(image, marks, dict(enumerate(classes)), _SIDE), "JPEG")
        yield Picture(drawn, finding.place, Path(name).name), set(marks.classes)


def _in_order(marks: Marks, classes: int) -> Marks:
    """Boxes with their corners in order, as a pen needs them."""
    boxes = [(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)) for x0, y0, x1, y1 in marks.boxes]
    known = [(box, label) for box, label in zip(boxes, marks.classes) if label < classes]
    return Marks([box for box, _ in known], [label for _, label in known])
