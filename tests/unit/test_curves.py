"""A curve as a picture in a page."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from ailab.jobs import progress
from ailab.portal.curves import svg_curve

CLIENT = progress.CLIENT_FOLDER
CHECKOUT = Path(__file__).parents[2]
NAN = float("nan")


def drawn(*pairs: tuple[float, float], title: str = "") -> ET.Element:
    return ET.fromstring(svg_curve(pairs, 300, 120, title))


SVG = "{http://www.w3.org/2000/svg}"


def points_of(picture: ET.Element) -> list[list[tuple[float, float]]]:
    texts = [line.attrib["points"].split() for line in picture.iter(f"{SVG}polyline")]
    return [[(float(x), float(y)) for x, y in (pair.split(",") for pair in text)] for text in texts]


def labels(picture: ET.Element) -> list[str]:
    return [str(text.text) for text in picture.iter(f"{SVG}text")]


def test_a_curve_is_one_line_with_its_ends_named() -> None:
    picture = drawn((1, 0.5), (2, 4), (3, 0.25))
    (line,) = points_of(picture)
    assert [x for x, _y in line] == [52, 172, 292] and line[1][1] == 8 and line[2][1] == 102
    assert labels(picture) == ["4", "0.25", "1", "3"]


def test_it_is_broken_where_there_is_no_number() -> None:
    picture = drawn((1, 1), (2, 2), (3, NAN), (4, math.inf), (5, 3), (6, NAN))
    first, dot = points_of(picture)
    assert len(first) == 2 and len(dot) == 2 and dot[0] == dot[1] == (292, 8)
    assert labels(picture) == ["3", "1", "1", "5"]


@pytest.mark.parametrize("pairs", [[], [(1.0, NAN)], [(NAN, 1.0)]])
def test_nothing_to_draw_is_a_dash(pairs: list[tuple[float, float]]) -> None:
    picture = drawn(*pairs)
    assert points_of(picture) == [] and labels(picture) == ["–"]


def test_what_does_not_change_is_in_the_middle() -> None:
    picture = drawn((1, 5), (2, 5))
    assert [y for _x, y in points_of(picture)[0]] == [55, 55] and labels(picture) == ["5", "1", "2"]
    assert labels(drawn((1, 5))) == ["5", "1"]
    huge = points_of(drawn((1, -1.7e308), (2, 1.7e308)))[0]
    assert [y for _x, y in huge] == [102, 8]


def test_a_title_is_text_and_nothing_else_and_the_colour_is_the_pages() -> None:
    text = svg_curve([(1, 1), (2, 2)], 300, 120, '</title><script>"&')
    assert "<script" not in text and "style=" not in text and "#" not in text.replace("http://", "")
    assert text.count("currentColor") >= 3
    assert str(ET.fromstring(text)[0].text) == '</title><script>"&'
