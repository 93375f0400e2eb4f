import pytest
from refusals import refused
from voc_folder import annotation_xml, object_xml

from ion_d2.data.voc_xml import parse_annotation

FULL = """<?xml version="1.0" encoding="UTF-8"?>
<annotation>
  <folder>VOC2012</folder><filename>a.jpg</filename>
  <owner><name>somebody</name></owner>
  <size><width>353</width><height>500</height><depth>3</depth></size>
  <object>
    <part><name>head</name>
      <bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></part>
    <name> person </name><pose>Left</pose><truncated>1</truncated><difficult>1</difficult>
    <bndbox><xmax>195</xmax><xmin>48</xmin><ymax>371.5</ymax><ymin>240.25</ymin></bndbox>
    <part><name>hand</name>
      <bndbox><xmin>5</xmin><ymin>6</ymin><xmax>7</xmax><ymax>8</ymax></bndbox></part>
  </object>
  <object><name>dog</name>
    <bndbox><xmin>8</xmin><ymin>12</ymin><xmax>352</xmax><ymax>498</ymax></bndbox></object>
</annotation>
"""


@pytest.fixture
def write(tmp_path):
    def _write(text, encoding="utf-8"):
        (tmp_path / "one.xml").write_bytes(text.encode(encoding))
        return tmp_path / "one.xml"

    return _write


def test_reads_size_boxes_and_flags_and_ignores_parts(write):
    annotation = parse_annotation(write(FULL))
    assert (annotation.width, annotation.height) == (353, 500)
    person, dog = annotation.objects
    assert (person.name, person.difficult) == ("person", 1)
    assert person.bbox == (47.0, 239.25, 195.0, 371.5)
    assert (dog.name, dog.difficult) == ("dog", 0)
    assert dog.bbox == (7.0, 11.0, 352.0, 498.0)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks_are_fine(write, encoding):
    text = FULL.replace('encoding="UTF-8"', "").replace("person", "Flaschenöffner")
    assert parse_annotation(write(text, encoding)).objects[0].name == "Flaschenöffner"


@pytest.mark.parametrize(
    "size", [None, (0, 0), ("", ""), (-1, 30), ("  ", "\n")], ids=lambda size: repr(size)
)
def test_a_size_that_is_no_size_is_none(write, size):
    annotation = parse_annotation(write(annotation_xml(size=size)))
    assert annotation.width is None
    assert annotation.objects == []


@pytest.mark.parametrize(
    ("text", "flag"), [("0", 0), ("1", 1), ("", 0), ("True", 1), ("Unspecified", 0)]
)
def test_difficult_as_labeling_tools_write_it(write, text, flag):
    xml = annotation_xml([object_xml("cat", (1, 1, 9, 9), f"<difficult>{text}</difficult>")])
    assert parse_annotation(write(xml)).objects[0].difficult == flag


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *((text, "well-formed") for text in ("", "<annotation><object>", "no xml at all")),
        ('<?xml version="1.0" encoding="nonsense"?><annotation/>', "well-formed"),
        ("<html></html>", "<html>"),
        (annotation_xml(["<object><name>cat</name></object>"]), "<bndbox>"),
        (annotation_xml([object_xml("", (1, 2, 3, 4))]), "<name>"),
        (annotation_xml([object_xml("cat", (1, 2, "x3", 4))]), "'x3'"),
        (annotation_xml([object_xml("cat", (1, "nan", 3, 4))]), "'nan'"),
        (annotation_xml([object_xml("cat", (1, 2, 3, ""))]), "<ymax>"),
        (annotation_xml([object_xml("cat", (1, 2, 3))]), "<ymax>"),
        (annotation_xml([object_xml("cat", (1, 2, 3, 4), "<difficult>2</difficult>")]), "0 or 1"),
        (annotation_xml(size=("wide", 3)), "<width>"),
    ],
)
def test_bad_files_are_named(write, text, words):
    path = write(text)
    with refused(path, words):
        parse_annotation(path)
    path.unlink()
    with refused(path):
        parse_annotation(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("entity", ['<!ENTITY % x "y"> %x;', '<!ENTITY x SYSTEM "u" NDATA n>'])
def test_entities_are_refused(write, entity, encoding):
    """Parameter entities and unparsed ones; tests/hostile_texts.py has others."""
    path = write(f"<!DOCTYPE a [{entity}]><annotation/>", encoding)
    with refused(path, "XML entities"):
        parse_annotation(path)
