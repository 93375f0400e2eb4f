"""The pure Python build of Detectron2: how its files are made, and whether the real one works."""

import importlib
import importlib.metadata
import pkgutil
import zipfile

import pytest
from bare_environment import SOURCES, make_archive, pure


@pytest.mark.parametrize(
    "old, new",
    [
        ("x.astype(np.bool)", "x.astype(bool)"),
        ("dtype=np.float, y=np.int", "dtype=float, y=int"),
        ("np.loadtxt(f, dtype=np.str)", "np.loadtxt(f, dtype=str)"),
        ("np.bool_, np.float32, np.int64, np.strings, xnp.int", None),
        ("interp=Image.LINEAR", "interp=Image.BILINEAR"),
        ("Image.LINEARLY", None),
    ],
)
def test_modernize_replaces_whole_removed_names_only(old, new):
    assert pure.modernize(old) == (old if new is None else new)


def test_wheel_paths_cannot_leave_the_installation(tmp_path):
    sources = {**SOURCES, "detectron2/../../evil.py": "", "detectron2/data.so": "binary"}
    with zipfile.ZipFile(pure.build_wheel(make_archive(tmp_path, sources)[0], tmp_path)) as wheel:
        assert not any("evil" in name or name.endswith(".so") for name in wheel.namelist())


def pure_build():
    """Skip unless the Detectron2 of this interpreter is the pure Python build."""
    try:
        found = importlib.metadata.version("detectron2")
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    if found != pure.VERSION:
        pytest.skip(f"Detectron2 here is {found}, not the pure Python build {pure.VERSION}")
    return importlib.import_module("detectron2")


def test_every_module_of_the_real_build_imports():
    package = pure_build()
    optional = {"caffe2", "onnx", "panopticapi"}  # none of them is a requirement of Detectron2
    walk = pkgutil.walk_packages(package.__path__, "detectron2.", onerror=lambda name: None)
    names = [found.name for found in walk]
    assert len(names) > 100
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            assert error.name.split(".")[0] in optional, f"{name}: {error}"


def test_compiled_operators_of_the_real_build_raise_a_clear_error():
    pure_build()
    torch = importlib.import_module("torch")
    layers = importlib.import_module("detectron2.layers")
    structures = importlib.import_module("detectron2.structures.rotated_boxes")
    boxes, scores = torch.tensor([[5.0, 5, 4, 4, 0]]), torch.ones(1)
    rotated = layers.ROIAlignRotated((2, 2), 1.0, 1)
    for call in (
        lambda: layers.nms_rotated(boxes, scores, 0.5),
        lambda: rotated(torch.ones(1, 1, 8, 8), torch.tensor([[0.0, 5, 5, 4, 4, 0]])),
        lambda: structures.pairwise_iou_rotated(boxes, boxes),
    ):
        with pytest.raises(RuntimeError, match="pure Python build"):
            call()


def test_real_build_runs_on_current_numpy_and_pillow():
    pure_build()
    np = importlib.import_module("numpy")
    transforms = importlib.import_module("detectron2.data.transforms")
    visualizer = importlib.import_module("detectron2.utils.visualizer")
    image = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert (transforms.ResizeTransform(8, 8, 8, 8).apply_image(image) == image).all()
    inner = transforms.ExtentTransform((2, 2, 6, 6), (4, 4)).apply_image(image[:, :, None])
    assert (inner[:, :, 0] == image[2:6, 2:6]).all()
    canvas = visualizer.Visualizer(np.zeros((20, 30, 3), np.uint8))
    canvas.draw_binary_mask(np.pad(np.ones((8, 18), bool), 6), color="r", area_threshold=0)
    drawn = canvas.draw_box((2, 2, 20, 12), edge_color="w").get_image()
    assert drawn.shape == (20, 30, 3) and drawn.max() > 100
    zoo = importlib.import_module("detectron2.model_zoo")
    assert zoo.get_config("PascalVOC-Detection/faster_rcnn_R_50_C4.yaml").INPUT.MIN_SIZE_TEST == 800
