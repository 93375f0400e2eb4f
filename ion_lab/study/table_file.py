"""The YAML file of a table.

    title: What skip pooling brings        # one line, the heading
    question: Does it find small objects?  # what the table is to answer, in a sentence or two
    config: ../ion_study.yaml              # of every run; relative to this file
    keys: {TEST.VOC_METRIC: area}          # overrides of every run (optional)
    data:                                  # one or several; every row is trained on each
      scenes:
        scenes: {train: 600, test: 100}    # arguments of generate_scenes ...
      cells:
        folder: bccd                       # ... or a VOC folder, its path given as --data bccd=PATH
        train: trainval                    # its splits
        test: test
        keys: {SOLVER.MAX_ITER: 1500}      # overrides on this data (optional)
    starts:                                # trainings that rows may start from (optional)
      pretrained:
        scenes: {train: 600, test: 100}    # pictures as above; without any, those of the row's run
        row: conv5                         # what it trains; without it, the row that starts from it
        config: ../ion_tiny.yaml           # without it, that of the table and the keys of the cut
        keys: {SOLVER.MAX_ITER: 600}       # overrides; they win over the row's (optional)
        parts: [backbone]                  # of the detector that rows take over; without it, all
    start: pretrained                      # what rows start from that do not say it (optional)
    rows:                                  # name: overrides; "start" names another start, "" none
      conv5: {MODEL.ROI_HEADS.IN_FEATURES: [conv5], start: ""}
      skip: {MODEL.ROI_HEADS.IN_FEATURES: [conv3, conv4, conv5]}
      skip, refined:                       # another row's models, evaluated by other TEST keys
        weights_of: skip
        TEST.BOX_REFINEMENT.ENABLED: true
    columns:                               # heading: where the figure is in voc_results.json
      inside: classes/tile_*/area/AP50
    baseline: conv5                        # the row that the others are compared with (optional)
    plot: bars                             # or lines, over several data (optional)
    full: {seeds: [0, 1, 2], keys: {}}
    quick: {seeds: [0], keys: {SOLVER.MAX_ITER: 500}, rows: [conv5, skip]}

``quick`` and ``full`` are the table's *cuts*; a cut without ``rows`` has all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ion_d2.data.plain_files import read_yaml
from ion_d2.errors import IONError
from ion_lab.study.figures import PLACES, is_place
from ion_lab.study.starting_weights import PARTS
from ion_lab.study.table import CUTS, PLOTS, Cut, Data, Row, Start, Table

_NEEDED = ("title", "question", "config", "data", "rows", "columns", *CUTS)
_OPTIONAL = ("keys", "starts", "start", "baseline", "plot")
_SCENE_ARGUMENTS = ("families", "seed", "size", "distance", "cue")
_START, _WEIGHTS_OF = "start", "weights_of"


def read_table(path: Path) -> Table:
    """Read and check a table.

    Raises:
        IONError: the file is missing, not YAML, or says something else than the module describes.
    """
    return _Reader(path).table(read_yaml(path))


class _Reader:
    """Turns the content of one file into a table; its errors name the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def table(self, content: Any) -> Table:
        fields = self._fields(content, "the table", _NEEDED, _OPTIONAL)
        table = Table(
            name=self._path.stem,
            title=str(fields["title"]),
            question=" ".join(str(fields["question"]).split()),
            config=self._config(fields["config"]),
            keys=self._mapping(fields["keys"], "keys"),
            data=tuple(self._each(fields, "data", self._data)),
            starts={start.name: start for start in self._each(fields, "starts", self._start)},
            rows=tuple(self._each(fields, "rows", partial(self._row, fields[_START]))),
            columns=dict(self._each(fields, "columns", self._column)),
            baseline=str(fields["baseline"] or ""),
            plot=str(fields["plot"] or PLOTS[0]),
            cuts={cut: self._cut(fields[cut], cut) for cut in CUTS},
        )
        self._check(table)
        return table

    def _each(self, fields: Mapping[str, Any], section: str, read: Any) -> list[Any]:
        items = self._mapping(fields[section], section).items()
        return [read(str(name), item, f"{section}.{name}") for name, item in items]

    def _data(self, name: str, content: Any, where: str) -> Data:
        fields = self._fields(content, where, (), ("scenes", "folder", "train", "test", "keys"))
        if bool(fields["scenes"]) == bool(fields["folder"]):
            raise self._error(f"{where} needs either scenes or a folder")
        scenes = None
        if fields["scenes"]:
            given = self._fields(
                fields["scenes"], f"{where}.scenes", ("train", "test"), _SCENE_ARGUMENTS
            )
            scenes = {argument: value for argument, value in given.items() if value is not None}
            self._check_scenes(scenes, f"{where}.scenes")
        splits = {split: str(fields[split]) for split in ("train", "test") if fields[split]}
        keys = self._mapping(fields["keys"], f"{where}.keys")
        return Data(name, scenes, str(fields["folder"] or ""), keys=keys, **splits)

    def _check_scenes(self, scenes: Mapping[str, Any], where: str) -> None:
        for name in ("train", "test", "seed", "size", "distance"):
            value = scenes.get(name, 0)
            if type(value) is not int or value < 0:
                raise self._error(f"{where}.{name} is {value!r}, not a whole number from 0 on")
        families = scenes.get("families", [])
        if not (isinstance(families, list) and all(isinstance(it, str) for it in families)):
            raise self._error(f"{where}.families is {families!r}, not a list of names")

    def _start(self, name: str, content: Any, where: str) -> Start:
        pictures = dict(self._mapping(content, where))
        row, keys = str(pictures.pop("row", None) or ""), pictures.pop("keys", None)
        config, parts = pictures.pop("config", None), pictures.pop("parts", None)
        data = self._data(name, pictures, where) if pictures else None
        config = None if config is None else self._config(config)
        parts = None if parts is None else self._parts(parts, f"{where}.parts")
        return Start(name, data, row, config, self._mapping(keys, f"{where}.keys"), parts)

    def _parts(self, content: Any, where: str) -> tuple[str, ...]:
        if not isinstance(content, list) or not content:
            raise self._error(f"{where} is not a list of parts")
        self._check_known(f"one of {where}", content, PARTS)
        return tuple(content)

    def _config(self, path: Any) -> Path:
        return (self._path.parent / str(path)).resolve()

    def _row(self, start: str | None, name: str, content: Any, where: str) -> Row:
        keys = dict(self._mapping(content, where))
        if _WEIGHTS_OF in keys:
            return self._evaluated_row(name, str(keys.pop(_WEIGHTS_OF)), keys, where)
        return Row(name, start=str(keys.pop(_START, start) or ""), keys=keys)

    def _evaluated_row(self, name: str, trained: str, keys: dict[str, Any], where: str) -> Row:
        for key in keys:
            if not key.startswith("TEST."):
                raise self._error(f"{where}, which trains no model ({_WEIGHTS_OF}), sets {key}")
        return Row(name, keys, weights_of=trained)

    def _column(self, name: str, content: Any, where: str) -> tuple[str, str]:
        if not isinstance(content, str):
            raise self._error(f"{where} is not a place in voc_results.json")
        self._check_known(f"the beginning of {where}", [content.split("/")[0]], tuple(PLACES))
        if not is_place(content):
            raise self._error(f"{where} is {content}, where voc_results.json has no figure")
        return name, content

    def _cut(self, content: Any, name: str) -> Cut:
        fields = self._fields(content, name, ("seeds",), ("keys", "rows"))
        seeds, rows = fields["seeds"], fields["rows"]
        if not isinstance(seeds, list) or not all(type(s) is int and s >= 0 for s in seeds):
            raise self._error(f"{name}.seeds is not a list of whole numbers from 0 on")
        if rows is not None and not isinstance(rows, list):
            raise self._error(f"{name}.rows is not a list of rows")
        if len(set(seeds)) < len(seeds):
            raise self._error(f"{name}.seeds names a seed twice")
        keys = self._mapping(fields["keys"], f"{name}.keys")
        return Cut(tuple(seeds), keys, None if rows is None else tuple(map(str, rows)))

    def _check(self, table: Table) -> None:
        names = [row.name for row in table.rows]
        for cut in CUTS:
            self._check_known(f"a row of {cut}", table.cuts[cut].rows or (), names)
        self._check_known("baseline", [table.baseline] if table.baseline else [], names)
        self._check_known("plot", [table.plot], PLOTS)
        trains = [row.name for row in table.rows if not row.weights_of]
        evaluated = [row.weights_of for row in table.rows if row.weights_of]
        self._check_known(_WEIGHTS_OF, evaluated, trains)
        trained = [start.row for start in table.starts.values() if start.row]
        self._check_known("the row of a start", trained, trains)
        starts = [row.start for row in table.rows if row.start]
        self._check_known("the start of a row", starts, list(table.starts))

    def _check_known(self, what: str, found: Sequence[str], known: Sequence[str]) -> None:
        for name in found:
            if name not in known:
                raise self._error(f"{what} is {name!r}, expected one of {', '.join(known)}")

    def _fields(
        self, content: Any, where: str, needed: Sequence[str], optional: Sequence[str]
    ) -> dict[str, Any]:
        """The fields of a mapping; optional ones that are absent are None."""
        content = self._mapping(content, where)
        for name in needed:
            if content.get(name) in (None, "", [], {}):
                raise self._error(f"{where} has no {name}")
        for name in content:
            if name not in (*needed, *optional):
                raise self._error(f"{where} has an unknown field {name}")
        return {name: content.get(name) for name in (*needed, *optional)}

    def _mapping(self, content: Any, where: str) -> Mapping[str, Any]:
        """A mapping; nothing is an empty one."""
        if content is None:
            return {}
        if not isinstance(content, dict):
            raise self._error(f"{where} is not a mapping of names to values")
        return content

    def _error(self, reason: str) -> IONError:
        return IONError(f"{self._path}: {reason}; ion_lab/study/table_file.py tells the format.")
