"""What trainings and evaluations have left in their folders, to be compared."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared_arguments import short_names

from ion_d2.data.plain_files import read_yaml
from ion_d2.engine.checkpoint import FINAL
from ion_d2.engine.run_folder import EVALUATED, TRAINED
from ion_d2.errors import IONError
from ion_d2.files import distinct_file_names
from ion_lab.report.evaluated_run import fields_of, read_json
from ion_lab.report.training_curves import Series, read_metrics

MEANS = ("AP", "AP50", "AP75")
_UNCOMPARED = ("OUTPUT_DIR", "VERSION")
_OF_TEST = ("_TEST", "DATASETS.TEST")  # ends of keys


@dataclass(frozen=True)
class Result:
    """What a run reached on a dataset, in percent; None where there is no figure."""

    dataset: str
    mean: dict[str, float | None]  # by the names in MEANS
    classes: dict[str, dict[str, float | None]]  # AP50 and AP, those that are known: by class
    every_class: bool  # whether a class of which nothing was found is among them
    metric: str  # VOC's definition by which they are, as TEST.VOC_METRIC; "" of another evaluator


@dataclass(frozen=True)
class Run:
    """A run's results on each of its test sets, its settings and its curves."""

    name: str
    results: list[Result]
    settings: dict[str, str]  # by the config's keys
    series: Series

    @property
    def iterations(self) -> int | None:
        """How many iterations it has trained for, if it has trained in this folder."""
        return int(self.series["total_loss"][0][-1]) + 1 if "total_loss" in self.series else None


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read runs that can be compared.

    Args:
        folders: their ``OUTPUT_DIR``.

    Raises:
        IONError: there are fewer than two, one has no results, or they are of different classes or
            numbers of datasets.
    """
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise IONError("Give two different runs or more; tools/report.py shows a single one.")
    names = short_names(folders)
    configs = [_read_config(folder) for folder in folders]
    metric = next(((last or own)["TEST"].get("VOC_METRIC") for own, last in configs), None)
    runs = [_read_run(*parts, metric) for parts in zip(names, folders, configs)]
    for run in runs[1:]:
        _check_alike(runs[0], run)
    return runs


def _read_config(folder: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The config of a run's training, and of an evaluation after it."""
    trained, evaluated = (read_run_config(folder / name) for name in (TRAINED, EVALUATED))
    if trained is None:
        raise IONError(f"{folder} has no {TRAINED}; give folders that train_net.py has written to.")
    return trained, evaluated


def read_run_config(path: Path) -> dict[str, Any] | None:
    """Read a config that a run left in its folder; None where there is no such file.

    Raises:
        IONError: it cannot be read, or is no config of Detectron2.
    """
    if not path.is_file():
        return None
    content = read_yaml(path)
    try:
        content["DATASETS"]["TEST"], content["TEST"]
    except (KeyError, TypeError) as error:
        raise IONError(f"{path} is no config of Detectron2 ({error!r}).") from error
    return content


def _read_run(
    name: str,
    folder: Path,
    configs: tuple[dict[str, Any], dict[str, Any] | None],
    metric: str | None,
) -> Run:
    trained, evaluated = configs
    of_training = list(trained["DATASETS"]["TEST"])
    series = read_metrics(str(folder / "metrics.json"))
    settings = dict(_flat(trained))
    # An evaluation of its own leaves figures on VOC's data alone.
    for config in (evaluated or trained, trained):
        places = _places(folder, list(config["DATASETS"]["TEST"]))
        found = {x: _from_voc(place, x, metric) for x, place in places}
        if config is evaluated and None not in found.values():
            settings.update(_of_evaluation(folder, evaluated))
        for x in of_training:
            if x in found and found[x] is None:
                prefix = f"{x}/" if len(of_training) > 1 else ""
                found[x] = _from_series(series, x, prefix, metric)
        results = [result for result in found.values() if result is not None]
        if results and len(results) == len(found):
            return Run(name, results, settings, series)
    raise _no_results(folder, [dataset for dataset, result in found.items() if result is None])


def _no_results(folder: Path, lacking: list[str]) -> IONError:
    if not lacking:
        return IONError(f"{folder} has no results: its DATASETS.TEST names no dataset.")
    return IONError(
        f"{folder} has no results on {lacking[0]}: neither a voc_results.json nor an evaluation in "
        "metrics.json; train it to its end or, on VOC's data, evaluate it with train_net.py "
        "--eval-only."
    )


def _places(folder: Path, datasets: list[str]) -> list[tuple[str, Path]]:
    """Datasets, and where an evaluation on all of them leaves the files of each."""
    several = len(datasets) > 1
    names = distinct_file_names(datasets)
    return [(x, folder / name if several else folder) for x, name in zip(datasets, names)]


def _from_voc(folder: Path, dataset: str, metric: str | None) -> Result | None:
    """Out of voc_results.json, by the metric that is asked for, or else the file's own.

    There is none in a file of another dataset, which an earlier evaluation has left.
    """
    path = os.path.join(folder, "voc_results.json")
    content = read_json(path)
    if content is None:
        return None
    with fields_of(path, "evaluate again"):
        if content.get("dataset", dataset) != dataset:
            return None
        metric = metric or content["metric"]
        if metric not in content["mean"]:
            raise IONError(
                f"{path} has no average precision {metric!r} (TEST.VOC_METRIC of the first run, by "
                "which all are compared); evaluate again, or name another run first."
            )
        mean = {name: content["mean"][metric][name] for name in MEANS}
        figures = {
            name: {label: entry[metric][name] for label, entry in content["classes"].items()}
            for name in ("AP50", "AP")
        }
    return Result(dataset, mean, figures, every_class=True, metric=metric)


def _from_series(series: Series, dataset: str, prefix: str, metric: str | None) -> Result | None:
    """Out of the last evaluation in metrics.json, which any of Detectron2's trainings writes.

    The means are by the metric that is asked for, where there are any. Those of the classes are by
    the run's own metric alone, and left out if it is another.
    """
    last = {name: float(values[-1]) for name, (_, values) in series.items()}
    own, by_metric = (f"{prefix}{task}/" for task in ("bbox", f"bbox_{metric}"))
    if f"{own}AP" not in last:
        return None
    used = by_metric if f"{by_metric}AP" in last else own
    mean = {name: last.get(used + name) for name in MEANS}
    classes = {}
    for figure in ("AP50", "AP") if all(last.get(own + n) == mean[n] for n in MEANS) else ():
        start = f"{own}{figure}-"
        found = {n[len(start) :]: v for n, v in last.items() if n.startswith(start)}
        if found:
            classes[figure] = found
    known = str(metric) if used == by_metric else ""
    return Result(dataset, mean, classes, every_class=False, metric=known)


def evaluation_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that an evaluation reads beside those of the model, such as ``TEST.VOC_METRIC``.

    Args:
        config: the content of an evaluation's config file.
    """
    return {k: v for k, v in _leaves(config) if k.startswith("TEST.") or k.endswith(_OF_TEST)}


def _of_evaluation(folder: Path, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The settings of an evaluation after the training, and its weights where they are others."""
    yield from ((key, str(value)) for key, value in evaluation_keys(config).items())
    weights = str(config.get("MODEL", {}).get("WEIGHTS", ""))
    own = Path(weights).resolve().parent == folder.resolve()
    if weights and not (own and Path(weights).name == f"{FINAL}.pth"):
        yield "MODEL.WEIGHTS of the evaluation", Path(weights).name if own else weights


def _flat(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    return ((key, str(value)) for key, value in _leaves(node) if key not in _UNCOMPARED)


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _check_alike(first: Run, other: Run) -> None:
    if len(first.results) != len(other.results):
        counts = " and ".join(f"{r.name} on {len(r.results)}" for r in (first, other))
        raise IONError(f"The runs were evaluated on different numbers of datasets: {counts}.")
    for one, two in zip(first.results, other.results):
        ours, theirs = (set().union(*r.classes.values()) for r in (one, two))
        known = one.every_class and two.every_class
        if ours and theirs and (ours != theirs if known else ours.isdisjoint(theirs)):
            raise IONError(
                f"{first.name} and {other.name} have different classes, and cannot be compared: "
                f"{', '.join(sorted(ours ^ theirs))} are in one of them alone."
            )
