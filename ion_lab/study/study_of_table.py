"""A study: run what is missing of a table, and write what there is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ion_d2.data.catalog import class_names
from ion_d2.engine.folder_lock import locked
from ion_d2.errors import IONError
from ion_d2.evaluation.results_file import write_json, write_text
from ion_d2.files import make_folder
from ion_lab.study.figures import columns_without_class
from ion_lab.study.markdown import to_markdown
from ion_lab.study.results import collect_results
from ion_lab.study.row_models import check_models
from ion_lab.study.runner import Interrupted, Runner, default_jobs
from ion_lab.study.runs import Run, plan_runs
from ion_lab.study.store import Store
from ion_lab.study.study_data import Pictures, prepare_pictures
from ion_lab.study.table import Table
from ion_lab.study.table_plots import draw_plots


@dataclass(frozen=True)
class Study:
    """What to run, and where.

    Attributes:
        table: the table.
        out: folder of all studies: pictures in ``scenes``, trainings in ``runs``, and the table in
            a folder of its name.
        command: words of the program that trains, e.g. ("python", "train_net.py").
        cut: "full" or "quick".
        seeds: instead of the cut's.
        jobs: trainings at a time; None takes what cores and memory allow.
        given: name -> VOC-layout folder, for data that is not synthetic.
        told_command: what the user typed, for the Markdown.
        tell: is called with a line for the user.
    """

    table: Table
    out: Path
    command: tuple[str, ...]
    cut: str = "full"
    seeds: tuple[int, ...] | None = None
    jobs: int | None = None
    given: Mapping[str, Path] = field(default_factory=dict)
    told_command: str = ""
    tell: Callable[[str], None] = print

    @property
    def folder(self) -> Path:
        """Where the table's results are written."""
        suffix = "" if self.cut == "full" else f"-{self.cut}"
        return self.out / f"{self.table.name}{suffix}"


def run_study(study: Study) -> list[str]:
    """Train what is not trained yet and write results.json, table.md and the plots.

    The first two are written after each training, so that at any time they tell what there is; the
    plots when all is done, or the study is interrupted.

    Returns:
        A sentence for each run that failed.

    Raises:
        Interrupted: by Ctrl-C or SIGTERM; the same study goes on later.
        IONError: the table's settings or data are wrong, or a file cannot be read or written.
    """
    store = Store(study.out.absolute() / "runs")
    runs = _plan(study)
    check_models(run for run in runs if not _is_finished(run, store))
    make_folder(study.folder, "choose another --out")
    runner = Runner(store, study.command, study.jobs or default_jobs(), study.tell)
    try:
        failures = runner.run(runs, lambda: _write(study, runs, store))
    except Interrupted:
        draw_plots(_write(study, runs, store), study.folder)
        raise
    draw_plots(_write(study, runs, store), study.folder)
    return failures


def _is_finished(run: Run, store: Store) -> bool:
    folder = store.known(run)
    return folder is not None and folder.finished


def _plan(study: Study) -> list[Run]:
    table = study.table
    data = [each for each in table.data if not each.folder or each.folder in study.given]
    _check_given(study)
    for each in table.data:
        if each not in data:
            study.tell(f"{each.name} is left out; to add it: --data {each.folder}=PATH")
    if not data:
        raise IONError(
            f"The table {table.name} needs pictures in VOC layout: add --data "
            f"{table.data[0].folder}=PATH."
        )
    folder = study.out.absolute() / "scenes"
    pictures = {each.name: prepare_pictures(each, folder, study.given) for each in data}
    _tell_empty_columns(study, pictures)
    used = {table.trained(row).start for row in table.rows_of(study.cut)}
    starts = {
        name: prepare_pictures(start.data, folder, study.given)
        for name, start in table.starts.items()
        if name in used and start.data is not None
    }
    return plan_runs(table, study.cut, pictures, starts, study.seeds)


def _check_given(study: Study) -> None:
    """Raise an IONError if a folder is given that the table does not have."""
    table = study.table
    sources = [*table.data, *(start.data for start in table.starts.values() if start.data)]
    known = sorted({each.folder for each in sources if each.folder})
    for name in study.given:
        if name not in known:
            told = ", ".join(known) or "none"
            raise IONError(f"--data {name} is no folder of {table.name}, which takes {told}.")


def _tell_empty_columns(study: Study, pictures: Mapping[str, Pictures]) -> None:
    """Tell which columns ask for classes that the data has not; the table can still be made."""
    for name, made in pictures.items():
        classes = class_names([made.train, made.test])
        if empty := columns_without_class(study.table.columns, classes):
            told = f"{', '.join(empty)} (its classes: {', '.join(classes)})"
            study.tell(f"{name} has no class of these columns, which stay empty there: {told}")


def _write(study: Study, runs: Sequence[Run], store: Store) -> dict[str, Any]:
    with locked(study.folder / "lock"):  # another process may be at work on the same table
        results = collect_results(study.table, study.cut, runs, store, study.folder)
        write_json(str(study.folder / "results.json"), results, indent=1)
        text = to_markdown(results, study.told_command)
        write_text(str(study.folder / "table.md"), text)
    return results
