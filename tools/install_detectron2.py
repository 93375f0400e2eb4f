"""Install Detectron2 into the running interpreter, unless it is there already.

A Detectron2 that can be imported is kept, one that is installed but broken is left alone and named.
Where there is none, the 0.5 source archive is fetched with pip (pip's own configuration counts),
its SHA-256 is checked, and a wheel of its Python files is installed as the distribution
``detectron2``: ``pip list`` shows it, ``pip uninstall detectron2`` removes it. See
``detectron2_pure.py`` for what the wheel holds.

Usage:
    python tools/install_detectron2.py [--archive FILE] [--sha256 HEX]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from detectron2_pure import VERSION, build_wheel, sha256_of

REQUIREMENT = "detectron2-cdo==0.5"
SHA256 = "53c9e79e9cc943e80419c588ea44b5479507a8628ed14a4e06bd093e29311b18"

# Metadata of a source archive comes from its setup script. This one needs bdist_wheel (from 70.1 on
# part of setuptools), and PyTorch, which a build environment of pip's own would lack.
BUILD_TOOL = "setuptools>=70.1,<81"
# Newer ones refuse the archive for a requirement by URL, though it is one of an extra that nobody
# asks for.
FETCHING_PIP = "pip<26.3"

# Says whether PyTorch and NumPy fit; it needs nothing that may be missing.
REQUIRE = Path(__file__).resolve().parents[1] / "ion_d2" / "_require.py"

# Runs in an interpreter of its own: a broken import must not take this program down, and what was
# imported before the installation must not hide what is there after it.
PROBE = """
import importlib, importlib.metadata, importlib.util, json, runpy, sys
state = dict(version=None, origin=None, error=None, missing=None, whole=True)
state["numpy"] = runpy.run_path(sys.argv[1])["numpy_fault"]()
try:
    found = importlib.metadata.distribution("detectron2")
    state["version"] = found.version
    files = [file for file in found.files or () if file.suffix != ".pyc"]
    state["whole"] = bool(files) and all(file.locate().exists() for file in files)
except importlib.metadata.PackageNotFoundError:
    pass
spec = importlib.util.find_spec("detectron2")
if spec is not None:
    state["origin"] = spec.origin or str(list(spec.submodule_search_locations)[0])
try:
    package = importlib.import_module("detectron2")
    state["version"] = state["version"] or getattr(package, "__version__", None)
    for part in ("modeling", "data", "engine", "evaluation"):
        importlib.import_module("detectron2." + part)
except BaseException as error:
    state["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
    if isinstance(error, ModuleNotFoundError):
        state["missing"] = error.name
print("\\n" + json.dumps(state))
"""


class InstallError(Exception):
    """A reason to stop, as one sentence for the user."""


def probe() -> dict:
    """Import Detectron2 in a new interpreter and say how that went.

    Returns:
        ``version`` and ``origin`` of what is installed (None if nothing is), ``error`` (None if all
        imports work), ``missing`` (the module that an import lacked, or None), ``whole`` (False if
        a part of the installed files is not there), ``numpy`` (why PyTorch cannot use it, or "").

    Raises:
        InstallError: the interpreter died.
    """
    # A neutral working directory: a folder that happens to be called detectron2 is no installation.
    with tempfile.TemporaryDirectory() as neutral:
        done = _python("-c", PROBE, str(REQUIRE), cwd=neutral)
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise InstallError(
            f"{sys.executable} stopped with status {done.returncode} while it imported Detectron2, "
            f"so nothing was changed: {_last_line(done.stderr)}"
        ) from None


def decide(state: dict) -> str:
    """Choose what to do about the Detectron2 that was found.

    Args:
        state: result of :func:`probe`.

    Returns:
        "keep", "install", or "repair" (our own wheel, unpacked only in part).

    Raises:
        InstallError: something is installed that cannot be imported and is not ours to change, or
            PyTorch cannot use NumPy.
    """
    if state["numpy"]:
        raise InstallError(state["numpy"])
    ours = state["version"] == VERSION
    if state["error"] is None and (state["whole"] or not ours):
        return "keep"
    if state["version"] is None and state["origin"] is None:
        return "install"
    if ours and not state["whole"]:
        return "repair"
    raise InstallError(_broken(state))


def _broken(state: dict) -> str:
    missing = state["missing"]
    if missing and missing.split(".")[0] != "detectron2":
        remedy = (
            f"install the missing module {missing} (`{sys.executable} -m pip install -e .` in this "
            "project's folder brings every one that is needed)"
        )
    else:
        remedy = (
            f"repair it, or remove it with `{sys.executable} -m pip uninstall detectron2` and run "
            "this program again"
        )
    version = state["version"] or "of unknown version"
    return (
        f"Detectron2 {version} ({state['origin'] or 'without files'}) is installed but cannot be "
        f"imported ({state['error']}), and was left as it is: {remedy}."
    )


def download(folder: Path, sha256: str) -> Path:
    """Fetch the source archive with pip.

    Args:
        folder: existing folder that receives the archive.
        sha256: expected digest; pip refuses any other file before it opens it.

    Returns:
        Path of the archive.

    Raises:
        InstallError: pip failed, or PyTorch, which the archive's setup script imports, is missing.
    """
    if _python("-c", "import torch").returncode:
        raise InstallError(
            f"PyTorch has to be there first: run `{sys.executable} -m pip install torch==2.11.0 "
            "torchvision==0.26.0` (or your own pair of versions), then this program again."
        )
    build_tool, requirements = folder / "build_tool", folder / "requirements.txt"
    _pip("install", "--target", str(build_tool), BUILD_TOOL, FETCHING_PIP)
    requirements.write_text(f"{REQUIREMENT} --hash=sha256:{sha256}\n")
    options = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
    search_path = os.pathsep.join(filter(None, [str(build_tool), os.environ.get("PYTHONPATH")]))
    _pip(
        *("download", *options, "--dest", str(folder), "--requirement", str(requirements)),
        env={**os.environ, "PYTHONPATH": search_path},
    )
    archives = list(folder.glob("*.tar.gz"))
    if len(archives) != 1:
        raise InstallError(f"pip left {len(archives)} archives of {REQUIREMENT}, not one.")
    return archives[0]


def install(archive: Path | None, sha256: str, repair: bool = False) -> None:
    """Build the wheel of the archive and install it with pip.

    Args:
        archive: local source archive; None to fetch it.
        sha256: expected digest of the archive.
        repair: overwrite what an interrupted run of this program left.

    Raises:
        InstallError: the archive is missing or is not the expected one, or pip failed; nothing is
            installed then.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = archive or download(folder, sha256)
        if not source.is_file():
            raise InstallError(f"{source} is no file: give --archive a {REQUIREMENT} archive.")
        found = sha256_of(source)
        if found != sha256:
            raise InstallError(
                f"{source} has SHA-256 {found}, expected {sha256}: nothing was installed; get the "
                f"archive of {REQUIREMENT} from a package index that you trust."
            )
        try:
            build_wheel(source, folder)
        except ValueError as error:
            raise InstallError(str(error)) from error
        # pip cannot uninstall what has no complete list of files; the same ones are written again.
        extra = ["--ignore-installed"] if repair else []
        # By name and not by path, which pip would record although the folder is gone afterwards.
        options = ["--no-deps", "--no-index", "--find-links", str(folder), *extra]
        _pip("install", *options, f"detectron2=={VERSION}")


def _python(*arguments: str, **options: Any) -> subprocess.CompletedProcess:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def _pip(*arguments: str, **options: Any) -> None:
    done = _python("-m", "pip", "--disable-pip-version-check", *arguments, **options)
    if done.returncode:
        raise InstallError(
            f"`pip {arguments[0]}` failed and Detectron2 was not installed; pip said: "
            f"{_last_line(done.stderr)}"
        )


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    places = [i for i, line in enumerate(lines) if line.lower().startswith("error")]
    # The line after an error may say what it is about.
    return " ".join(lines[places[-1] : places[-1] + 2]) if places else (lines or ["nothing"])[-1]


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns its exit status (0 Detectron2 can be imported, 1 it cannot)."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--archive", type=Path, help=f"local {REQUIREMENT} archive, instead of fetching it"
    )
    parser.add_argument("--sha256", default=SHA256, help="expected digest of the archive")
    options = parser.parse_args(arguments)
    try:
        state = probe()
        action = decide(state)
        if action == "keep":
            print(f"Detectron2 {state['version']} works and is kept: {state['origin']}")
            return 0
        install(options.archive, options.sha256, repair=action == "repair")
        state = probe()
        if state["error"]:
            raise InstallError(_broken(state))
        print(f"Detectron2 {state['version']} is installed: {state['origin']}")
        return 0
    except InstallError as error:
        print(f"install_detectron2: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("install_detectron2: interrupted; run it again to finish.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
