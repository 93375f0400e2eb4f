"""Every reader takes changed files, or refuses them in one sentence; see tools/fuzz.py."""

from __future__ import annotations

import pytest
from cli_helpers import load_tool
from hypothesis import HealthCheck, Phase, given, settings

pytestmark = pytest.mark.usefixtures("catalogs")

fuzz_readers = load_tool("fuzz_readers")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", fuzz_readers.READERS)
def test_it_reads_or_refuses(tmp_path, name):
    if name == "safetensors":
        pytest.importorskip("safetensors")
    reader = fuzz_readers.READERS[name]
    path = reader.write(tmp_path)
    sound = path.read_bytes()
    assert reader.content(reader.values(sound))
    fuzz_readers.check(reader, path, sound)
    reader.read(path)

    phases, checks = (Phase.generate, Phase.shrink), list(HealthCheck)

    @settings(max_examples=25, deadline=None, database=None, derandomize=True, phases=phases,
              suppress_health_check=checks)  # fmt: skip
    @given(fuzz_readers.inputs(reader, sound))
    def run(content):
        fuzz_readers.check(reader, path, content)

    run()


def test_a_reader_that_fails_is_found(tmp_path):
    def read(path):
        return path.read_bytes().decode("ascii")

    sound = b'{"a": [1, 2]}'
    reader = fuzz_readers.Reader(None, read, fuzz_readers._json, fuzz_readers._of_json)

    @settings(max_examples=500, database=None, derandomize=True)
    @given(fuzz_readers.inputs(reader, sound))
    def run(content):
        fuzz_readers.check(reader, tmp_path / "a.json", content)

    with pytest.raises(UnicodeDecodeError):
        run()
