"""tools/try_model.py: what is taken, what is told of a picture, and the page around it."""

from __future__ import annotations

import os
import socket
import struct
import sys
import urllib.error
import urllib.request
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cli_helpers import load_tool, run_tool, says
from detectron2.structures import Boxes, Instances
from model_helpers import SMALL, small_config, small_model
from model_trial import NO_CONTEXT, ModelTrial, Seen, read_upload
from PIL import Image

from ion_d2.engine.drawing import class_color
from ion_d2.engine.predictor import IONPredictor
from ion_d2.errors import IONError

NAMES = ["ant", "<b>ee", "cat"]
SIZES = ("INPUT.MIN_SIZE_TEST", "96", "INPUT.MAX_SIZE_TEST", "128")


def seen_of(*detections, size=(60, 80)):
    """A gray picture of a size (H, W) with detections (box, score, class), the surest first."""
    boxes, scores, labels = zip(*detections) if detections else ([], [], [])
    found = Instances(size, pred_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4).float()))
    found.scores, found.pred_classes = torch.tensor(scores), torch.tensor(labels, dtype=torch.long)
    return Seen(np.full((*size, 3), 128, np.uint8), found)


SEEN = seen_of(
    ((0, 0, 40, 30), 0.9, 1), ((10, 10, 20, 20), 0.8, 0), ((60, 5, 70, 50), 0.7, 1),
    ((0, 0, 80, 60), 0.2, 2),
)  # fmt: skip


def trial_of(config_file="configs/ion_tiny.yaml"):
    cfg = small_config(*SIZES, config_file=config_file)
    model = small_model(*SIZES, config_file=config_file)
    return ModelTrial(cfg, IONPredictor(cfg, model), NAMES)


@pytest.fixture(scope="module")
def trial():
    return trial_of()


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


def png_header(width, height):
    """A PNG file that has a size and no pixels, so that nothing can decode it."""
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", size), (b"IDAT", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
REFUSED = {
    "large": (png_header(1000, 2000), "a.png has 1000 x 2000 pixels, 2.0 million.* 1 million"),
    "bomb": (png_header(60000, 60000), "a.png has far too many pixels"),
    "text": (b"no picture", "a.png is not a picture .* give a JPEG"),
    "svg": (SVG, "a.png is not a picture"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not a picture"),
    "broken": (png_header(10, 10), "a.png cannot be decoded"),
}


@pytest.mark.parametrize(("content", "words"), REFUSED.values(), ids=list(REFUSED))
def test_what_is_no_picture_or_too_large_is_refused(tmp_path, content, words):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(IONError, match=words) as refusal:
        read_upload(str(tmp_path / "a.png"), 1e6)
    assert str(tmp_path) not in str(refusal.value)


def test_pictures_are_read_as_for_training(tmp_path):
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 0] = (250, 0, 0)
    exif = Image.Exif()
    exif[274] = 6  # to be turned by a quarter to the right: the left column comes to the top
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    read = read_upload(str(tmp_path / "a.png"), 32)
    assert read.shape == (8, 4, 3) and (read[0] == (0, 0, 250)).all() and not read[1:].any()


def test_the_table_counts_what_is_above_the_threshold(trial):
    table = trial.class_table(SEEN, 0.7)
    assert table.count("<tr>") == 3
    assert table.index("&lt;b&gt;ee</td><td>2</td><td>0.90") < table.index(
        "ant</td><td>1</td><td>0.80"
    )
    assert "cat" not in table and f"rgb{class_color(1)}" in table
    assert "cat</td><td>1</td><td>0.20" in trial.class_table(SEEN, 0.2)
    assert "score of 0.95 or more; the surest is &lt;b&gt;ee 0.90." in trial.class_table(SEEN, 0.95)
    assert trial.class_table(seen_of(), 0.5) == "<p>No detection has a score of 0.50 or more.</p>"


@pytest.mark.parametrize(
    ("place", "threshold", "index"),
    [((15, 15), 0.5, 1), ((15, 15), 0.85, 0), ((5, 25), 0.1, 0), ((50, 40), 0.1, 3),
     ((50, 40), 0.5, None), ((65, 40), 0.5, 2)],
)  # fmt: skip
def test_a_click_picks_the_smallest_box(trial, place, threshold, index):
    drawn = trial.draw(SEEN, threshold)
    assert trial.pick(SEEN, threshold, *(drawn.width * side / 80 for side in place)) == index


def test_the_drawing_shows_what_is_above_the_threshold(trial):
    low, high = (trial.draw(SEEN, threshold) for threshold in (0.1, 0.5))
    corner = low.width - 1, low.height - 1
    assert low.getpixel(corner) == class_color(2) and high.getpixel(corner) == (128, 128, 128)
    assert high.getpixel((70 * 12 - 1, 40 * 12)) == class_color(1)


def test_detections_are_the_predictors_the_surest_first(trial, picture):
    image = read_upload(picture, 1e6)
    seen, found = trial.detect(image), trial._predictor(image)["instances"]
    assert len(found) and seen.found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def test_the_context_of_a_detection(trial, picture):
    image = read_upload(picture, 1e6)
    found = seen_of(((0, 0, 80, 60), 0.9, 0), ((30, 20, 50, 40), 0.8, 1), ((0, 0, 0, 0), 0.1, 2))
    views = [trial.draw_context(Seen(image, found.found), index) for index in range(3)]
    shares = [float(words.split("yellow. ")[1].split(" %")[0]) for _, words in views]
    # Nothing is outside of the whole picture, and all of an empty box.
    assert shares[0] == 0 and 10 < shares[1] < 100 and shares[2] == 100
    assert all(drawn.size == (960, 720) for drawn, _ in views)
    assert np.asarray(views[0][0]).std() > 10


def test_a_model_without_context_says_so(picture):
    plain = trial_of("configs/faster_rcnn_tiny.yaml")
    assert not plain.has_context
    assert plain.draw_context(SEEN, 0) == (None, NO_CONTEXT)


@pytest.mark.parametrize(
    ("options", "words"),
    [(("--examples", "docs/api"), ("docs/api", "no picture")),
     ((), ("pip install -e '.[web]'",))],
)  # fmt: skip
def test_bad_options_end_in_one_sentence(monkeypatch, capfd, options, words):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "model_page", raising=False)
    tool = load_tool("try_model")
    assert says(run_tool(tool, capfd, "--config-file", "configs/ion_tiny.yaml", *options), *words)


def test_hidden_pictures_are_no_examples(tmp_path):
    for name in ("._a.png", ".trash/b.png", "deep/c.png", "d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert load_tool("try_model").find_examples(tmp_path) == [tmp_path / "deep/c.png"]


@pytest.mark.parametrize(("configured", "used"), [("0.5", 0.05), ("0.01", 0.01)])
def test_the_slider_reaches_low_scores(tmp_path, configured, used):
    torch.save({"model": small_model().state_dict()}, tmp_path / "model.pth")
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    tool = load_tool("try_model")
    opts = [*SMALL, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", configured]
    args = ["--config-file", "configs/ion_tiny.yaml", "--classes", str(tmp_path / "classes.txt")]
    args += [*opts, "MODEL.WEIGHTS", str(tmp_path / "model.pth")]
    trial = tool.load_trial(tool.build_parser().parse_intermixed_args(args))
    assert trial.names == NAMES and trial.has_context
    assert trial._cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST == used


@pytest.fixture(scope="module")
def page():
    """The module of the page, told to keep to itself as the program does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_RUN_HISTORY", "False")
        pytest.importorskip("gradio", reason="Gradio is not installed")
        import model_page

        yield model_page


def test_a_new_threshold_does_not_run_the_model(page, trial, picture, monkeypatch):
    actions = page.PageActions(trial, 1e6)
    state, drawn, table, chosen, told = actions.detect({"path": picture}, 0.0)
    assert drawn.size == (960, 720) and "<table>" in table and not told.visible
    assert chosen.value == "1.0" and len(chosen.choices) == len(state[1].found)
    monkeypatch.setattr(trial, "detect", None)
    above = float(state[1].found.scores[1])
    assert [key for _, key in actions.redraw(state, above, None)[2].choices][:2] == ["1.0", "1.1"]
    kept, gone = (actions.redraw(state, above, key)[2].value for key in ("1.1", "1.99"))
    assert (kept, gone) == ("1.1", "1.0")


def test_a_fault_is_one_sentence_and_the_next_picture_works(page, trial, picture, monkeypatch):
    actions = page.PageActions(trial, 1e6)
    told = page.PageActions(trial, 100).detect({"path": picture}, 0.5)[-1]
    assert told.visible and "80 x 60 pixels" in told.value
    with monkeypatch.context() as patch:
        patch.setattr(trial, "_predictor", lambda image: 1 / 0)
        *nothing, told = actions.detect({"path": picture}, 0.5)
    assert nothing[:3] == [None, None, ""] and nothing[3].value is None
    assert "The model failed on this picture (ZeroDivisionError: division by zero)" in told.value
    assert actions.detect({"path": picture}, 0.0)[0] is not None


def test_the_context_follows_the_choice(page, trial, picture):
    actions = page.PageActions(trial, 1e6)
    state = actions.detect({"path": picture}, 0.0)[0]
    assert actions.look(state, "1.0")[0].size == (960, 720)
    # Of an earlier picture, and none.
    assert actions.look(state, "0.0") == actions.look(state, None) == (None, "")
    x0, y0, x1, y1 = state[1].box(0, (960, 720))
    event = SimpleNamespace(index=[(x0 + x1) / 2, (y0 + y1) / 2])
    assert actions.choose(state, 0.0, event).startswith("1.")


@pytest.fixture(scope="module")
def address(page, trial, tmp_path_factory):
    """A running page that offers an example, and fails if it asks any other machine."""
    folder = tmp_path_factory.mktemp("page")
    Image.new("RGB", (80, 60), (90, 60, 30)).save(folder / "example.png")
    asked = []

    def look_up(host, *args, own=socket.getaddrinfo, **options):
        asked.append(host)
        return own(host, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "cache"))
        patch.setattr(socket, "getaddrinfo", look_up)
        built = page.build(trial, [folder / "example.png"], 10_000, 0.0)
        url = page.serve(built, "127.0.0.1", None, 100_000)
        yield url
        built.close()
    assert set(asked) <= {"127.0.0.1", "localhost", None}


def test_a_file_that_is_too_large_is_not_taken(address):
    def send(size):
        mark = b"--x\r\nContent-Disposition: form-data; name=files; filename=a.png\r\n\r\n"
        body = mark + bytes(size) + b"\r\n--x--\r\n"
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        return urllib.request.Request(f"{address}gradio_api/upload", body, kind)

    assert urllib.request.urlopen(send(90_000)).status == 200
    with pytest.raises(urllib.error.HTTPError, match="413"):
        urllib.request.urlopen(send(110_000))


def test_a_port_that_is_taken_is_named(page, trial, address):
    port = int(address.rstrip("/").rsplit(":", 1)[1])
    with pytest.raises(IONError, match=f"port {port} .*--port"):
        page.serve(page.build(trial, [], 1, 0.5), "127.0.0.1", port, 1)
