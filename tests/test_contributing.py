"""The worked examples of CONTRIBUTING.md are made and run, and what it names is there."""

import functools
import json
import re

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.structures import Boxes, Instances
from fvcore.common.registry import Registry
from model_helpers import make_input, small_config, small_model, train_step
from PIL import Image
from worked_examples import EXAMPLES, ROOT, TEXT, files_after, import_changed, is_new, paths_in

import ion_d2
from ion_d2.data import DATASET_FORMS, ensure_registered
from ion_d2.layers import spatial_irnn, spatial_irnn_reference
from ion_d2.layers.irnn import BACKENDS
from ion_d2.modeling import CONTEXT_REGISTRY


@pytest.fixture
def change(monkeypatch, catalogs):
    """Makes an example; the registries, where names may be registered again, are as before."""
    for registry in (BACKBONE_REGISTRY, CONTEXT_REGISTRY, DATASET_FORMS):
        monkeypatch.setattr(registry, "_obj_map", dict(registry._obj_map))
    monkeypatch.setattr(Registry, "_do_register", lambda r, *pair: r._obj_map.update([pair]))
    return lambda title, *users: import_changed(title, users, monkeypatch)


def check_in_a_model(cases, variant, *opts):
    """A block that reads no padding, and a detector with it that trains."""
    block, x = cases.make_block(variant), torch.randn(2, 3, 6, 8)
    together, alone = block(x, torch.tensor([[4, 5], [6, 8]])), block(x[:1, :, :4, :5])
    torch.testing.assert_close(together[:1, :, :4, :5], alone)
    assert alone.any() and not together[0, :, 4:].any() and not together[0, :, :, 5:].any()
    model = small_model(*cases.options(variant), *opts)
    train_step(model, make_input(96, 128), make_input(64, 96))
    assert all(p.grad.any() for p in model.backbone.context.parameters())
    return model.backbone


def test_a_context_kind(change):
    modules = change("Add a context kind")
    assert "CrossMean" in modules["__init__"].__all__
    block = check_in_a_model(modules["context_cases"], "cross_mean").context
    with torch.no_grad():
        block.merge.weight.zero_()[[0, 1], [0, -1]] = 1
        block.merge.bias.zero_()
    x = torch.rand(1, block.merge.in_channels // 2, 3, 4)
    found = block(x)[0, :2, 1, 2].tolist()
    assert found == pytest.approx([sum(x[0, 0, 1].tolist()) / 4, sum(x[0, -1, :, 2].tolist()) / 3])


def test_a_normalization(change):
    users = ["ion_d2/modeling/backbone/vgg.py", "ion_d2/modeling/context/conv.py"]
    modules = change("Add a normalization", *users, "tests/modeling/context_cases.py")
    modules["context_cases"].VARIANTS["cell"] = {"NAME": "Conv", "NORM": "CELL"}
    backbone = check_in_a_model(modules["context_cases"], "cell", "MODEL.VGG.NORM", "CELL")
    assert {type(m.norm).__name__ for m in backbone.modules() if hasattr(m, "norm")} == {"CellNorm"}
    norm = modules["norms"].build_norm("CELL", 3)
    found = norm(torch.tensor([1.0, 2, 6]).view(1, 3, 1, 1)).flatten().tolist()
    assert found == pytest.approx([value / (14 / 3) ** 0.5 for value in (-2, -1, 3)], rel=1e-4)


def test_a_data_format(change, tmp_path):
    change("Add a data format")
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    table, head = tmp_path / "boxes.csv", "file,x0,y0,x1,y1,class\n"
    table.write_text(f"{head}a.png,1,2,30,20.5,dog\na.png,30,10,50,30,cat\n")
    ensure_registered([f"csv:{table}"])
    (record,) = DatasetCatalog.get(f"csv:{table}")
    assert MetadataCatalog.get(f"csv:{table}").thing_classes == ["cat", "dog"]
    assert (record["file_name"], record["height"]) == (str(tmp_path / "a.png"), 40)
    found = [(box["bbox"], box["category_id"]) for box in record["annotations"]]
    assert found == [([1, 2, 30, 20.5], 1), ([30, 10, 50, 30], 0)]
    table.write_text(f"{head}a.png,1,2,3,wide,dog\n")
    with pytest.raises(ion_d2.IONError, match="'wide'"):
        DATASET_FORMS.get("csv")(f"csv:{table}")


def test_a_training_step(change):
    class Model(torch.nn.Linear):
        def forward(self, images):
            return {"loss": super().forward(images[0]).sum()}

    model = Model(3, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    loader = [[torch.tensor([1.0, 2.0, 6.0])]]
    change("Change the training step")["steps"].PassTrainer(model, loader, optimizer).train(0, 1)
    step = {name: before[name] - value for name, value in model.state_dict().items()}
    expected = torch.tensor([-2.0, -1.0, 3.0]).expand(2, 3)  # the input less its mean
    torch.testing.assert_close(step, {"weight": expected, "bias": torch.ones(2)})


def test_an_average_precision(change, tmp_path):
    modules = change("Add an average precision", "ion_d2/evaluation/voc_evaluator.py")
    MetadataCatalog.get("apart").thing_classes = ["cat"]
    boxes = torch.arange(12.0)[:, None] * 50 + torch.tensor([0.0, 0, 20, 20])
    objects = [{"bbox": box.tolist(), "bbox_mode": 0, "category_id": 0} for box in boxes[::2]]
    record = {"image_id": "a", "height": 600, "width": 600, "annotations": objects}
    evaluator = modules["voc_evaluator"].IONVOCEvaluator(
        "apart", metric="101point", output_dir=str(tmp_path), records=[record]
    )
    scores = torch.rand(10, generator=torch.Generator().manual_seed(1))
    found = Instances((600, 600), pred_boxes=Boxes(boxes[:10]), scores=scores)
    found.pred_classes = torch.zeros(10, dtype=torch.int64)
    evaluator.process([record], [{"instances": found}])
    results = evaluator.evaluate()
    # pycocotools' own figure: boxes that are exact or far off match alike for VOC and COCO.
    assert results["bbox"]["AP50"] == pytest.approx(results["bbox_coco"]["AP50"], abs=1e-9)
    assert 20 < results["bbox_101point"]["AP50"] != results["bbox_11point"]["AP50"]
    report = json.loads((tmp_path / "voc_results.json").read_text())
    headers = modules["tables"].voc_cells(report).headers[3:]
    ends = ("11-point", "area", *["101-point"] * 3)
    assert headers == [f"{n} {end}" for n, end in zip(("AP50", "AP50", "AP50", "AP75", "AP"), ends)]


@pytest.mark.parametrize("sizes", [None, torch.tensor([[3, 2], [4, 5]])])
@pytest.mark.parametrize("directions", [("right", "left", "down", "up"), ("up",)])
def test_a_back_end(change, monkeypatch, sizes, directions):
    known = change("Add a back-end of the spatial IRNN")["backends"].BACKENDS
    assert list(known) == [*BACKENDS, "loop"]
    monkeypatch.setitem(BACKENDS, "loop", known["loop"])
    ends = []
    for sweep, more in ((spatial_irnn, {"backend": "loop"}), (spatial_irnn_reference, {})):
        x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
        out = sweep(x, directions=directions, sizes=sizes, **more)
        (out * torch.linspace(-1, 2, out.numel()).view_as(out)).sum().backward()
        ends.append((out.detach(), x.grad))
    torch.testing.assert_close(*ends)


def test_what_is_named_exists():
    assert len(paths_in(TEXT)) > 25
    assert all((ROOT / path).exists() != is_new(path) for path in paths_in(TEXT))
    for key in re.findall(r"\b(?:MODEL|TEST)(?:\.[A-Z_]+)+", TEXT):
        functools.reduce(getattr, key.split("."), small_config())


def test_each_example_touches_at_most_three_files():
    assert len(EXAMPLES) == 6
    for example in EXAMPLES:
        assert files_after(example.splitlines()[0])
        assert len({path for path in paths_in(example) if not path.startswith("docs/")}) <= 3
