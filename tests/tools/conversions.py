"""A small set in COCO's format, and runs of tools/convert_dataset.py."""

import json

import yaml
from cli_helpers import contents, load_tool, run_tool, says
from PIL import Image
from voc_folder import write_image

from ion_d2.data import ensure_registered

FORMS = ("voc", "coco", "yolo", "labelme")
BOX = "0 .5 .5 .2 .2"  # a line of YOLO's labels

COCO = {
    "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    "images": [{"id": i, "file_name": f"{i}/a.jpg", "width": 40, "height": 30} for i in (5, 9)],
    "annotations": [
        {"id": 1, "image_id": 5, "category_id": 7, "bbox": [2, 3, 10.5, 8], "area": 60,
         "iscrowd": 0, "segmentation": [[2, 3, 12.5, 3, 12.5, 11], [4, 5, 6, 5, 6, 11]]},
        {"id": 2, "image_id": 5, "category_id": 3, "bbox": [0, 0, 40, 30], "area": 1200,
         "iscrowd": 0, "segmentation": [[0, 0, 40, 0, 40, 30, 0, 30]]},
    ],
}  # fmt: skip


def write_small_coco(folder):
    """Two pictures of 40x30, the first with two objects, and the name of their set."""
    for name in ("5/a.jpg", "9/a.jpg"):
        (folder / name).parent.mkdir()
        write_image(folder / name)
    (folder / "set.json").write_text(json.dumps(COCO))
    return f"coco:{folder}/set.json:{folder}"


def convert(capfd, *arguments):
    code, out, err = run_tool(load_tool("convert_dataset"), capfd, *arguments)
    assert code == 0, err
    name = out.strip().removeprefix("Wrote ")
    ensure_registered([name])
    return name


def refused(capfd, words, source, form, folder, *options):
    """Run a conversion that ends with such an error and changes nothing; the error."""
    before = contents(folder)
    result = run_tool(load_tool("convert_dataset"), capfd, source, form, folder, *options)
    assert says(result, words)
    assert contents(folder) == before
    return result[2]


def voc_of(root, annotations=(), **picture):
    """A VOC folder of a picture f1.jpg of 40x30, with the objects of COCO's content or others."""
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / name).mkdir(parents=True)
    Image.new("RGB", (40, 30), **picture).save(root / "JPEGImages/f1.jpg")
    size = "<size><width>40</width><height>30</height></size>"
    (root / "Annotations/f1.xml").write_text(f"<annotation>{size}{annotations}</annotation>")
    (root / "ImageSets/Main/all.txt").write_text("f1\n")
    (root / "classes.txt").write_text("cat\n")
    return f"voc:{root}:all"


def yolo_of(root, names, *lines, pictures=("a.jpg",), size=(40, 30), **saved):
    """A YOLO folder of pictures, each with these lines of labels."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for place, name in enumerate(pictures):
        # Each has another color.
        Image.new("RGB", size, (90 * place, len(str(root)), 9)).save(
            root / "images" / name, **saved
        )
        (root / f"labels/{name.rpartition('.')[0]}.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text(yaml.safe_dump({"train": "images", "names": list(names)}))
    return f"yolo:{root}/data.yaml:train"
