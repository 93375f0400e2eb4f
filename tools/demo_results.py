"""What demo.py found, in files: JSON, CSV, COCO's results, and labels of YOLO and labelme."""

from __future__ import annotations

import csv
import functools
import io
import json
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Callable, TextIO

from convert_dataset import FORMATS, place_picture
from dataset_writers import write_files
from demo_folder import ELSEWHERE, OutputFolder
from demo_inputs import SUFFIXES, Shot
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import BoxMode, Instances
from PIL import Image

from ion_d2.data.class_file import class_file_text
from ion_d2.errors import IONError
from ion_d2.files import make_folder, write_result

Entry = dict[str, Any]  # what was found in a picture or frame
_ADVICE = f"make room or {ELSEWHERE}"
_SPLIT = "train"  # of the labels
_FRAME = {"quality": 95}


def describe(shot: Shot, found: Instances, names: Sequence[str]) -> Entry:
    """Put the detections of a picture or frame into plain values."""
    entry: Entry = {"file": shot.file}
    if shot.clip is not None:
        entry.update(frame=shot.frame, seconds=shot.seconds)
    height, width = found.image_size
    entry.update(width=width, height=height)
    rows = zip(found.pred_boxes.tensor.tolist(), found.scores.tolist(), found.pred_classes.tolist())
    entry["detections"] = [
        {"class": names[label], "class_id": label, "score": score, "box": box}
        for box, score, label in rows
    ]
    return entry


def _write_json(out: TextIO, entries: Iterator[Entry], names: Sequence[str]) -> None:
    _write_list(out, map(_rounded, entries), indent=1)


def _write_classes(out: TextIO, entries: Iterator[Entry], names: Sequence[str]) -> None:
    out.write(class_file_text(names))


def _write_csv(out: TextIO, entries: Iterator[Entry], names: Sequence[str]) -> None:
    table = csv.writer(out, lineterminator="\n")
    of_picture = ["file", "frame", "seconds", "width", "height"]
    table.writerow([*of_picture, "class", "class_id", "score", "x0", "y0", "x1", "y1"])
    for entry in map(_rounded, entries):
        for each in entry["detections"]:
            row = [each["class"], each["class_id"], each["score"], *each["box"]]
            table.writerow([*map(entry.get, of_picture), *row])


def _write_coco_results(out: TextIO, entries: Iterator[Entry], names: Sequence[str]) -> None:
    results = (each for entry in entries for each in entry["coco"])
    _write_list(out, ({**each, "category_id": each["category_id"] + 1} for each in results))


def _write_coco_images(out: TextIO, entries: Iterator[Entry], names: Sequence[str]) -> None:
    categories = [{"id": place, "name": name} for place, name in enumerate(names, 1)]
    head: Entry = {"info": {"description": "Pictures of coco_results.json"}, "licenses": []}
    head.update(categories=categories, annotations=[])
    keys = ("frame", "width", "height")
    images = (
        {"id": image_id, "file_name": entry["file"], **{k: entry[k] for k in keys if k in entry}}
        for image_id, entry in enumerate(entries, 1)
    )
    out.write(json.dumps(head)[:-1] + ', "images": ')
    _write_list(out, images)
    out.write("}")


def _write_list(out: TextIO, items: Iterator[Entry], indent: int | None = None) -> None:
    """Write what json.dump writes, an item at a time."""
    start = "[\n" if indent else "["
    for item in items:
        text = json.dumps(item, indent=indent)
        out.write(start + (textwrap.indent(text, " " * indent) if indent else text))
        start = ",\n" if indent else ", "
    out.write("[]" if start.startswith("[") else "\n]" if indent else "]")


def _rounded(entry: Entry) -> Entry:
    detections = [
        {**each, "score": round(each["score"], 4), "box": [round(v, 2) for v in each["box"]]}
        for each in entry["detections"]
    ]
    if "seconds" in entry:
        entry = {**entry, "seconds": round(entry["seconds"], 3)}
    shown = {k: v for k, v in entry.items() if k not in ("picture", "coco")}
    return {**shown, "detections": detections}


Write = Callable[[TextIO, Iterator[Entry], Sequence[str]], None]
# The files of a form; the forms that are not here are folders of labels.
_FILES: dict[str, list[tuple[str, Write]]] = {
    "json": [("detections.json", _write_json), ("detections.classes.txt", _write_classes)],
    "csv": [("detections.csv", _write_csv)],
    "coco": [("coco_results.json", _write_coco_results), ("coco_images.json", _write_coco_images)],
}
FORMS = (*_FILES, "yolo", "labelme")


class Results:
    """Gathers what was found on disk, and writes it in each form at the end."""

    def __init__(
        self,
        folder: OutputFolder,
        names: Sequence[str],
        forms: Sequence[str],
        json_file: Path | None = None,
    ) -> None:
        """
        Args:
            folder: for the results.
            names: of the classes, by id.
            forms: of :data:`FORMS`.
            json_file: another place for detections.json, with the classes beside it.

        Raises:
            IONError: the folder cannot be written to, or a result would replace a file.
        """
        self._folder, self._names = folder, names
        self.pictures = self.objects = 0
        classes = json_file and json_file.with_suffix(".classes.txt")
        elsewhere = {"detections.json": json_file, "detections.classes.txt": classes}
        self._files = [
            (elsewhere.get(name) or folder.path / name, write)
            for form in dict.fromkeys(forms)
            for name, write in _FILES.get(form, ())
        ]
        self._coco = "coco" in forms
        self.labels = {form: folder.path / form for form in forms if form not in _FILES}
        self._labels_written: list[str] = []
        for path, _ in self._files:
            make_folder(path.parent, ELSEWHERE)
            folder.require_free(path)
        for path in self.labels.values():
            _require_new(path)
        try:  # a file without a name, gone with this process
            self._spool: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", dir=folder.path)
        except OSError as error:
            raise IONError(
                f"Nothing can be written to {folder.path} ({error.strerror}); {_ADVICE}."
            ) from error

    def add(self, shot: Shot, found: Instances) -> None:
        """Take the detections of a picture or frame; label forms get the picture itself now.

        Raises:
            IONError: the picture cannot be copied.
        """
        found = found[found.scores.argsort(descending=True)]
        entry = describe(shot, found, self._names)
        if self._coco:
            entry["coco"] = instances_to_coco_json(found, self.pictures + 1)
        if self.labels:
            entry["picture"] = self._picture_name(shot)
        for form, folder in self.labels.items():
            picture = _labeled(form, folder) / entry["picture"]
            _place_shot(shot, picture)
            self._folder.wrote(picture)  # so that no later run takes it for an input
        self._spool.write(json.dumps(entry) + "\n")
        self.pictures += 1
        self.objects += len(entry["detections"])

    def _picture_name(self, shot: Shot) -> str:
        """A name that no other picture has, without subfolders; its labels have the same stem."""
        below = shot.place.parent.relative_to(self._folder.path).parts
        wanted = Path(self._folder.path, "labels", "_".join([*below, f"{shot.stem}.json"]))
        suffix = Path(shot.file).suffix
        return self._folder.free(wanted, ".json").stem + (suffix if _is_kept(shot) else ".jpg")

    def write(self, faults: dict[str, str]) -> None:
        """Write every form; the sentence of one that cannot be written is put into ``faults``."""
        for path, write in self._files:
            try:
                write_result(str(path), functools.partial(self._dump, write), _ADVICE)
                self._folder.wrote(path)
            except IONError as error:
                faults[str(path)] = str(error)
        for form, folder in self.labels.items():
            try:
                records = self._records(_labeled(form, folder))
                write_files(FORMATS[form][0](folder, _SPLIT, self._names, records))
                self._labels_written.append(form)
            except IONError as error:
                faults[str(folder)] = str(error)

    def told(self) -> list[str]:
        """Say in a few lines what there is, with the names of the datasets."""
        lines = [f"Found {self.objects} objects in {self.pictures} pictures: {self._folder.path}"]
        lines += [f"Wrote {path}" for path, _ in self._files if self._folder.is_ours(path)]
        named = {"yolo": f"data.yaml:{_SPLIT}", "labelme": _SPLIT}
        lines += [f"Wrote {it}:{self.labels[it] / named[it]}" for it in self._labels_written]
        return lines

    def _dump(self, write: Write, raw: IO[bytes]) -> None:
        # A file's name may have bytes that are no text.
        out = io.TextIOWrapper(raw, encoding="utf-8", errors="surrogateescape", newline="")
        write(out, self._entries(), self._names)
        out.detach()

    def _entries(self) -> Iterator[Entry]:
        self._spool.seek(0)
        return map(json.loads, self._spool)

    def _records(self, pictures: Path) -> Iterator[dict[str, Any]]:
        """Detectron2's dicts, for the writers of labels."""
        for entry in self._entries():
            annotations = [
                {"bbox": x["box"], "bbox_mode": BoxMode.XYXY_ABS, "category_id": x["class_id"]}
                for x in entry["detections"]
            ]
            size = {"height": entry["height"], "width": entry["width"]}
            yield {**size, "annotations": annotations, "written": pictures / entry["picture"]}


def _require_new(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise IONError(
            f"{folder} is there, and its labels may have been corrected; move it away or choose "
            "another --output."
        )


def _labeled(form: str, folder: Path) -> Path:
    """The folder of the pictures."""
    return folder / FORMATS[form][1].format(split=_SPLIT)


def _is_kept(shot: Shot) -> bool:
    """Whether its file is one of which datasets are made."""
    return shot.clip is None and Path(shot.file).suffix.lower() in SUFFIXES


def _place_shot(shot: Shot, target: Path) -> None:
    if _is_kept(shot):
        place_picture(Path(shot.file).resolve(), target)
        return
    picture = Image.fromarray(shot.image[:, :, ::-1])
    write_result(str(target), lambda raw: picture.save(raw, "JPEG", **_FRAME), _ADVICE)
