"""The benchmark at a small size: its figures are there and are those of what it says."""

import json
import os
import sys
from types import SimpleNamespace

import pytest
import torch
from cli_helpers import load_tool, run_tool, says
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes
from model_helpers import SMALL
from torch.autograd import DeviceType

from ion_d2.errors import IONError
from ion_d2.modeling import SkipPooler

TINY = ["configs/faster_rcnn_tiny.yaml", "configs/ion_tiny.yaml"]
SIZE = ["--image-size", "96", "128"]
OPTS = ["--opts", *SMALL[:-6]]


@pytest.fixture
def benchmark():
    return load_tool("benchmark")


@pytest.fixture
def run(benchmark, tmp_path):
    """The figures of a command as they are read back, its chart being there."""

    def run(*arguments, chart=True):
        paths = [tmp_path / "figures.json", tmp_path / "chart.png"]
        files = ["--json", str(paths[0]), "--chart", str(paths[1])]
        assert benchmark.main([arguments[0], *files, "--repeats", "1", *arguments[1:]]) == 0
        assert not chart or paths[1].read_bytes()[:4] == b"\x89PNG"
        report = json.loads(paths[0].read_text())
        assert report["machine"]["threads"] == torch.get_num_threads()
        assert report["command"][0] == arguments[0]
        return report["figures"]

    return run


KINDS = ("ROIPool", "ROIAlignV2")


@pytest.mark.parametrize("kind", KINDS)
def test_pooler(run, kind):
    rows = run("pooler", *SIZE, "--rois", "6", "--kind", kind)["pooler"]
    assert list(rows) == ["step by step", "SkipPooler"]
    assert all(row["seconds"] == row["turns"][0] > 0 for row in rows.values())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_compared_gives_the_same(benchmark, kind):
    works = sys.modules["benchmark_works"]
    torch.manual_seed(0)
    shapes = [ShapeSpec(channels=c, stride=s) for c, s in works.FEATURES]
    features = [torch.rand(1, s.channels, 96 // s.stride, 128 // s.stride) for s in shapes]
    boxes = [Boxes(torch.tensor([[3.0, 5, 60, 70], [10, 10, 22, 19]]))]
    pooler = SkipPooler(shapes, pooler_type=kind)
    got, expected = pooler(features, boxes), works.literal_pooler(pooler, kind, features, boxes)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-3)


def test_data(run, capsys):
    assert run("data")["data"]["one picture"]["seconds"] > 0
    assert "20 made pictures of 500 x 375" in capsys.readouterr().out


@pytest.mark.parametrize("command, title", {"infer": "inference", "train": "training step"}.items())
def test_configs_with_variants_on_a_made_picture(run, capsys, command, title):
    variant = ["--variant", "MODEL.RPN.NMS_THRESH", "0.5"] if command == "train" else []
    rows = run(command, *TINY, *SIZE, *variant, *OPTS)[title]
    more = ("", " MODEL.RPN.NMS_THRESH 0.5") if variant else ("",)
    assert list(rows) == [f"{it}{end}" for it in ("faster_rcnn_tiny", "ion_tiny") for end in more]
    assert "made picture of 96 x 128" in capsys.readouterr().out
    for row in rows.values():
        assert row["images/s"] == pytest.approx(1 / row["seconds"])
        assert ("GFLOPs" in row) == (command == "infer")


def test_a_config_of_detectron2_on_a_dataset(run, scenes):
    name = "model_zoo:COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml"
    small = ["MODEL.RESNETS.RES2_OUT_CHANNELS", "8", "INPUT.MIN_SIZE_TEST", "64"]
    small += ["MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RPN.POST_NMS_TOPK_TEST", "9"]
    (row,) = run("infer", name, "--dataset", f"voc:{scenes}:test", "--opts", *small).values()
    assert row["mask_rcnn_R_50_C4_1x"]["GFLOPs"] > 0


def test_defaults_of_one_command_are_not_those_of_another(benchmark):
    parse = benchmark.build_parser().parse_args
    given = {name: vars(parse([name])) for name in ("infer", "curves", "data", "irnn")}
    assert {name: it["repeats"] for name, it in given.items()} == {
        "infer": 5, "curves": 5, "data": 300, "irnn": 15
    }  # fmt: skip
    assert given["infer"]["image_size"] == (600, 800) != given["curves"]["image_size"]


def test_a_lazy_config(run, tmp_path):
    path = tmp_path / "lazy.py"
    path.write_text(
        "from detectron2.config import LazyCall as L\nfrom model_helpers import small_model\n"
        "model = L(small_model)()\n"
    )
    rows = run("train", str(path), *SIZE)["training step"]
    assert rows["lazy"]["seconds"] > 0


def test_parts_of_a_step(run):
    figures = run("parts", "--training", *TINY, *SIZE, *OPTS)
    table = figures["ion_tiny"]
    parts = ["backbone", "context", "RPN", "pooling", "merging", "fully connected"]
    assert list(table) == [*parts, "post-processing", "left over", "sum", "whole"]
    assert all(table[part]["backward"] > 0 for part in parts)
    assert table["sum"]["%"] == pytest.approx(100)
    assert "context" not in figures["faster_rcnn_tiny"]


def test_curves(run):
    figures = run("curves", TINY[1], *SIZE, "--factors", "1", "2", "--proposals", "10", *OPTS)
    at = {axis: rows["ion_tiny"]["x"] for axis, rows in figures.items()}
    # 136 x 181 is as near as whole pixels come to twice the area.
    assert at == {"megapixels": [0.012288, 0.024616], "proposals": [10, 20], "images": [1, 2]}


def test_curves_of_a_model_without_roi_heads_are_refused(benchmark):
    with pytest.raises(IONError, match="ROI heads; leave out r"):
        sys.modules["benchmark_curves"].time_curves({"r": SimpleNamespace(net=None)}, None, None)


def test_the_line_through_points(benchmark):
    fit = sys.modules["benchmark_curves"].fit_line
    exact = fit([1, 2, 4], [3.0, 5.0, 9.0], "images")
    assert exact == pytest.approx({"start": 1, "slope": 2, "R2": 1, "deviation": 0})
    # By hand: the line 0.5 + 1.5 x is off by 0, 0.5, -1, 0.5 at the points.
    off = fit([1, 2, 3, 4], [2.0, 4.0, 4.0, 7.0], "images")
    assert off == pytest.approx(
        {"start": 0.5, "slope": 1.5, "R2": 1 - 1.5 / 12.75, "deviation": 0.2}
    )


REFUSED = {
    "config": (["infer", "configs/none.yaml"], "configs/none.yaml"),
    "packaged config": (["train", "model_zoo:COCO-Detection/none.yaml"], "none.yaml"),
    "config of all": (["gpu", "configs/none.yaml"], "configs/none.yaml"),
    "device": (["parts", "--device", "tpu"], "--device is 'tpu'"),
    "dataset": (["infer", TINY[1], "--dataset", "voc:nowhere:test"], "nowhere"),
    "lazy": (["infer", "configs/lazy/mask_rcnn_R_50_FPN.py", "--opts", "SEED", "1"], "LazyConfig"),
    "no curve": (["curves", TINY[1], "--factors", "1", *SIZE, *OPTS], "no line"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_a_sentence(benchmark, capfd, name):
    words, told = REFUSED[name]
    assert says(run_tool(benchmark, capfd, *words), told)


def test_all_of_it_runs_without_a_gpu(benchmark, tmp_path, capsys):
    size = ["--image-size", "64", "64", "--repeats", "1", "--proposals", "10"]
    words = ["gpu", TINY[1], *size, "--output", str(tmp_path), *OPTS]
    assert benchmark.main(words) == 0, capsys.readouterr()
    names = {path.stem for path in tmp_path.glob("*.json")}
    assert names == {
        "infer", "train", "parts", "parts_of_a_step", "profile", "curves", "pooler", "irnn"
    }  # fmt: skip
    rows = json.loads((tmp_path / "train.json").read_text())["figures"]["training step"]
    assert list(rows) == [f"ion_tiny, {it}" for it in ("float32", "bf16")]
    profiled = json.loads((tmp_path / "profile.json").read_text())["figures"]
    assert "context, backward" in profiled["ion_tiny, float32: parts"]


def test_what_fails_leaves_the_rest(benchmark, monkeypatch, tmp_path, capsys):
    gpu, seen = sys.modules["benchmark_gpu"], []

    def main(words):
        seen.append(words[0])
        if words[0] == "train":
            raise RuntimeError("out of memory")

    args = benchmark.build_parser().parse_args(["gpu", "--output", str(tmp_path)])
    args.device = torch.device("cpu")
    assert gpu.run_all(args, main) == 1
    assert seen[-1] == "irnn" and "Failed: train" in capsys.readouterr().out


def test_kernels_belong_to_the_last_mark_of_their_thread(benchmark):
    cpu, cuda = DeviceType.CPU, DeviceType.CUDA

    def event(start, thread, name, spent=0, kernels=(), device=cpu):
        return SimpleNamespace(
            time_range=SimpleNamespace(start=start, elapsed_us=lambda: spent), thread=thread,
            name=name, self_cpu_time_total=spent, device_type=device,
            kernels=[SimpleNamespace(name=it, duration=us) for it, us in kernels],
        )  # fmt: skip

    events = [
        event(5, 1, "aten::conv2d", 7, [("conv", 2000)]),
        event(1, 1, "part: backbone, forward"),
        event(8, 2, "part: RPN, backward"),
        event(9, 2, "aten::mm", 3, [("gemm", 1000), ("gemm", 500)]),
        event(9, 1, "aten::conv2d", 1, [("conv", 3000)]),
        *(event(10, 0, name, us, device=cuda) for name, us in
          [("conv", 2000), ("conv", 3000), ("gemm", 1500), ("fused", 700)]),
    ]  # fmt: skip
    operations = sys.modules["benchmark_gpu"].operations
    backbone, rpn = "backbone, forward", "RPN, backward"
    milliseconds, calls = operations(events, True)
    kernels = {(backbone, "conv"): 5.0, (rpn, "gemm"): 1.5, ("of no part", "fused"): 0.7}
    assert milliseconds == pytest.approx(kernels)
    assert calls == {(backbone, "conv"): 2, (rpn, "gemm"): 2}
    on_cpu = {(backbone, "aten::conv2d"): 0.008, (rpn, "aten::mm"): 0.003}
    assert operations(events[:5], False)[0] == pytest.approx(on_cpu)


def test_files_of_one_name_are_told_apart(run, tmp_path):
    files = [tmp_path / folder / "config.yaml" for folder in "ab"]
    for file, config in zip(files, TINY):
        file.parent.mkdir()
        file.write_text(f"_BASE_: {os.path.abspath(config)}\n")
    rows = run("infer", *map(str, files), *SIZE, *OPTS)["inference"]
    assert list(rows) == [str(file.with_suffix("")) for file in files]
    with pytest.raises(IONError, match="ion_tiny is given twice"):
        run("infer", *TINY, TINY[1], *SIZE, *OPTS)
