"""Every reader takes changed files, or refuses them in one sentence; see tools/fuzz.py."""

from __future__ import annotations

import pytest
from fuzz_changes import Reader, check, inputs
from fuzz_formats import JSON
from fuzz_readers import READERS
from hypothesis import HealthCheck, Phase, given, settings

pytestmark = pytest.mark.usefixtures("catalogs")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_it_reads_or_refuses(tmp_path, name):
    if name == "safetensors":
        pytest.importorskip("safetensors")
    reader = READERS[name]
    path = reader.write(tmp_path)
    sound = path.read_bytes()
    assert reader.format.content(reader.format.values(sound))
    check(reader, path, sound)
    reader.read(path)

    phases, checks = (Phase.generate, Phase.shrink), list(HealthCheck)

    @settings(max_examples=25, deadline=None, database=None, derandomize=True, phases=phases,
              suppress_health_check=checks)  # fmt: skip
    @given(inputs(reader, sound))
    def run(content):
        check(reader, path, content)

    run()


def test_a_reader_that_fails_is_found(tmp_path):
    def read(path):
        return path.read_bytes().decode("ascii")

    sound = b'{"a": [1, 2]}'
    reader = Reader(None, read, JSON)

    @settings(max_examples=500, deadline=None, database=None, derandomize=True)
    @given(inputs(reader, sound))
    def run(content):
        check(reader, tmp_path / "a.json", content)

    with pytest.raises(UnicodeDecodeError):
        run()
