import pytest
from coco_json import BLUE, write_coco
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import (
    load_voc_instances,
    register_coco_instances,
    register_pascal_voc,
)
from refusals import refused
from voc_folder import object_xml, write_voc

from ion_d2.config import add_ion_config
from ion_d2.data.catalog import class_names, ensure_registered
from ion_d2.engine.fit_config import check_num_classes, settle_classes

OBJECTS = {
    "a": [object_xml("dog", (1, 1, 9, 9))],
    "b": [object_xml("cat", (1, 1, 9, 9), "<difficult>1</difficult>")],
}


pytestmark = pytest.mark.usefixtures("catalogs")


@pytest.fixture
def folder(tmp_path):
    return write_voc(tmp_path / "VOC", OBJECTS, split="trainval")


@pytest.fixture
def coco(tmp_path):
    """A file of one picture with a blue square."""
    write_coco(tmp_path, [(BLUE, 5, 4, 30, None)])
    return tmp_path / "all.json"


def test_a_voc_name_registers_loader_and_metadata_once(folder):
    name = f"voc:{folder}:trainval"
    ensure_registered([name, name])
    ensure_registered([name])
    metadata = MetadataCatalog.get(name)
    assert metadata.thing_classes == ["cat", "dog"]
    assert metadata.stuff_classes == ["background", "cat", "dog"]
    assert metadata.evaluator_type == "pascal_voc"
    assert (metadata.dirname, metadata.split) == (str(folder), "trainval")
    assert metadata.ignore_label == 255
    dicts = DatasetCatalog.get(name)
    assert [r["image_id"] for r in dicts] == ["a", "b"]
    assert [r["annotations"][0]["category_id"] for r in dicts] == [1, 0]


def test_paths_relative_in_the_home_folder_and_with_colons(tmp_path, monkeypatch):
    root = write_voc(tmp_path / "C:drive" / "VOC", OBJECTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    names = ["voc:C:drive/VOC:train", "voc:~/C:drive/VOC:train", f"voc:{root}/:train"]
    ensure_registered(names)
    monkeypatch.chdir("/")
    for name in names:
        assert MetadataCatalog.get(name).dirname == str(root)
        assert len(DatasetCatalog.get(name)) == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("voc:", ("'voc:'", "voc:PATH:SPLIT")),
        ("voc:somewhere", ("'voc:somewhere'", "voc:PATH:SPLIT")),
        ("voc::train", ("'voc::train'", "voc:PATH:SPLIT")),
        ("voc:somewhere:", ("'voc:somewhere:'", "voc:PATH:SPLIT")),
        ("voc:{tmp}/none:train", ("{tmp}/none", "exist")),
        ("voc:{tmp}/VOC:train", ("train.txt", "trainval")),
        ("coco:{tmp}/no.json:{tmp}", ("no.json", "exist")),
        ("coco:{tmp}/all.json:{tmp}/no_dir", ("no_dir", "exist")),
        ("coco:{tmp}/all.json", ("coco:JSON:IMAGE_DIR",)),
        ("voc_2007_trianval", ("'voc_2007_trianval'", "voc_2007_trainval", "voc:PATH")),
        ("qqqqqqqq", ("'qqqqqqqq'", "coco:JSON:IMAGE_DIR")),
        ("their:zebra", ("'their:zebra'",)),
    ],
)
def test_names_that_lead_nowhere(folder, coco, tmp_path, name, words):
    with refused(*(word.format(tmp=tmp_path) for word in words)):
        ensure_registered([name.format(tmp=tmp_path)])


def test_detectron2s_voc_names_are_read_by_ions_loader(folder):
    register_pascal_voc("their_voc", str(folder), "trainval", 2007, ["dog", "cat"])
    MetadataCatalog.get("their_voc").set(evaluator_type="pascal_voc", extra="kept")
    ensure_registered(["their_voc"])
    ensure_registered(["their_voc"])
    metadata = MetadataCatalog.get("their_voc")
    assert (metadata.evaluator_type, metadata.year, metadata.extra) == ("pascal_voc", 2007, "kept")
    assert metadata.thing_classes == ["dog", "cat"]
    assert metadata.stuff_classes == ["background", "dog", "cat"]
    assert (metadata.dirname, metadata.split) == (str(folder), "trainval")
    assert metadata.name == "their_voc"
    found = [record["annotations"][0] for record in DatasetCatalog.get("their_voc")]
    assert [(a["category_id"], a["difficult"]) for a in found] == [(0, 0), (1, 1)]


def test_paths_may_be_pathlibs(folder, coco):
    register_pascal_voc("voc_path", folder, "trainval", 2012, ["cat", "dog"])
    register_coco_instances("coco_paths", {}, coco, coco.parent)
    for name, count in (("voc_path", 2), ("coco_paths", 1)):
        ensure_registered([name])
        dicts = DatasetCatalog.get(name)
        assert len(dicts) == count
        assert all(isinstance(record["file_name"], str) for record in dicts)
    register_pascal_voc("gone", folder / "gone", "trainval", 2012, ["cat", "dog"])
    with refused("gone", "exist"):
        ensure_registered(["gone"])


def test_their_own_loader_of_a_voc_set_stays(folder):
    def load():
        return load_voc_instances(str(folder), "trainval", ["cat", "dog"])[:1]

    DatasetCatalog.register("theirs", load)
    place = {"dirname": str(folder), "split": "trainval", "year": 2007}
    classes = {"thing_classes": ["cat", "dog"], "evaluator_type": "pascal_voc"}
    MetadataCatalog.get("theirs").set(**place, **classes)
    ensure_registered(["theirs"])
    assert len(DatasetCatalog.get("theirs")) == 1


@pytest.mark.parametrize("name", ["voc_2007_trainval", "coco_2017_val"])
def test_missing_built_in_data_names_the_folder_and_the_variable(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    metadata = MetadataCatalog.get(name)
    with refused(metadata.get("dirname") or metadata.json_file, "DETECTRON2_DATASETS"):
        ensure_registered([name])
    assert MetadataCatalog.get(name).evaluator_type in ("pascal_voc", "coco")


def test_a_coco_name_knows_its_classes_at_once_and_loads(coco, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "coco:all.json:pictures"
    ensure_registered([name, name])
    metadata = MetadataCatalog.get(name)
    assert metadata.thing_classes == ["red", "blue"]
    assert (metadata.evaluator_type, metadata.json_file) == ("coco", str(coco))
    (record,) = DatasetCatalog.get(name)
    assert record["file_name"] == str(tmp_path / "pictures/1.png")
    assert record["annotations"][0]["category_id"] == 1
    assert metadata.thing_classes == ["red", "blue"]


@pytest.mark.parametrize("json_name", ["C:x.json", "labels"])
def test_coco_paths_with_colons_or_without_extension(coco, tmp_path, json_name):
    coco.rename(tmp_path / json_name)
    (tmp_path / "D:img").mkdir()
    image_dir = tmp_path / ("D:img" if ".json" in json_name else "")
    name = f"coco:{tmp_path}/{json_name}:{image_dir}"
    ensure_registered([name])
    assert MetadataCatalog.get(name).image_root == str(image_dir)


def test_classes_must_agree(folder, tmp_path):
    other = write_voc(tmp_path / "other", {"a": OBJECTS["a"]})
    names = [f"voc:{folder}:trainval", f"voc:{other}:train"]
    assert class_names(names[:1] * 2) == ["cat", "dog"]
    with refused(*names):
        class_names(names)
    with refused("DATASETS"):
        class_names([])


def test_classes_that_are_known_only_after_loading(coco, tmp_path):
    register_coco_instances("plain_coco", {}, str(coco), str(tmp_path))
    assert class_names(["plain_coco"]) == ["red", "blue"]
    DatasetCatalog.register("no_classes", lambda: [])
    with refused("'no_classes'", "thing_classes"):
        class_names(["no_classes"])


@pytest.mark.parametrize(
    ("boxes", "labels", "words"),
    [
        (0, None, None),
        (2, None, None),
        (0, 0, None),
        (2, 3, None),
        (20, None, ("MODEL.ROI_HEADS.NUM_CLASSES is 20", "(cat, dog)", "to 2")),
        (2, 2, ("MODEL.SEM_SEG_HEAD.NUM_CLASSES is 2", "background", "to 3")),
    ],
)
def test_numbers_of_classes_are_settled_or_contradicted(folder, boxes, labels, words):
    cfg, name = get_cfg(), f"voc:{folder}:trainval"
    add_ion_config(cfg)
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (name,)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = boxes
    expected = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if labels is not None:
        cfg.MODEL.SEG_REGULARIZER_ON, expected = True, 3
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = labels
    if words is None:
        check_num_classes(cfg)
        assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
        assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == expected
    else:
        with refused(name, *words):
            check_num_classes(cfg)


def test_the_number_of_classes_of_a_retinanet_is_its_own_key(folder):
    cfg, name = get_cfg(), f"voc:{folder}:trainval"
    add_ion_config(cfg)
    cfg.DATASETS.TRAIN, cfg.MODEL.META_ARCHITECTURE = (name,), "RetinaNet"
    with refused(name, "MODEL.RETINANET.NUM_CLASSES is 80", "(cat, dog)", "to 2"):
        check_num_classes(cfg, [name])
    cfg.MODEL.RETINANET.NUM_CLASSES = 0
    check_num_classes(cfg, [name])
    assert cfg.MODEL.RETINANET.NUM_CLASSES == cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
    cfg.MODEL.RETINANET.NUM_CLASSES = 3
    cfg.freeze()
    assert len(settle_classes(cfg)) == 3 == cfg.MODEL.ROI_HEADS.NUM_CLASSES
