"""Names on sheets, in any script."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from deepcnn.data import lettering, survey


def drawn(found: lettering.Lettered) -> bytes:
    sheet = Image.new("L", (200, 30))
    ImageDraw.Draw(sheet).text((2, 2), found.text, 255, found.font)
    return sheet.tobytes()


def test_latin_names_are_drawn_by_the_font_that_pillow_brings() -> None:
    for name in ("cat", "Hund 3", "x_y-z", "50 %"):
        assert lettering.lettered(name) == lettering.Lettered(name, lettering.own(), whole=True)


def test_a_font_of_the_system_is_taken_where_it_has_the_characters() -> None:
    """Whatever is installed: nothing is drawn as the box that stands for what a font lacks."""
    for name in ("Bär, größer", "漢字", "кошка", "γάτα", "ö漢"):
        found = lettering.lettered(name)
        assert found.whole == (found.text == name)
        boxes = [lettering.Lettered(lettering.NO_CHARACTER * n, found.font, True) for n in (1, 2)]
        assert drawn(found) not in map(drawn, boxes)


def test_without_such_a_font_names_are_spelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "FONTS", ())
    found = lettering.lettered("漢 x")
    assert (found.text, found.font, found.whole) == ("\\u6f22 x", lettering.own(), False)
    assert lettering.lettered("ǎ").text in ("ǎ", "a")
    counts, image = np.array([1, 1]), np.zeros((8, 8, 3), np.uint8)
    sheet = survey.Survey(("漢", "cat"), (8, 8, 3), counts, ([image], [image]))
    assert survey.spelled(sheet) == 1
    assert survey.draw(sheet).size[0] > 150
