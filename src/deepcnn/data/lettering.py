r"""Writes names on pictures, in any script.

One font, of Latin letters, comes with Pillow. Other scripts need a font of the system. If no font
has a character, its name in Python replaces it: U+6F22 is \u6f22.
"""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import dataclass

from PIL import ImageFont

SIZE = 15
# By file names, which Pillow finds in the folders of the system and of the user.
FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "FreeSans.ttf"),
    *("NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "DroidSansFallbackFull.ttf"),
    *("wqy-zenhei.ttc", "wqy-microhei.ttc", "unifont.ttf", "unifont.otf"),  # Linux
    *("Arial Unicode.ttf", "PingFang.ttc", "Hiragino Sans GB.ttc"),  # macOS
    *("arialuni.ttf", "msyh.ttc", "YuGothM.ttc", "malgun.ttf", "segoeui.ttf"),  # Windows
)
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
NO_CHARACTER = "\U0010ffff"  # for which a font draws what it draws for all that it lacks


@dataclass(frozen=True)
class Lettered:
    """A text to draw, and the font that has its characters; `whole`: no character is replaced."""

    text: str
    font: Font
    whole: bool


def lettered(text: str) -> Lettered:
    """Choose the first font that has all characters of a text; if none has, replace characters."""
    plain = unicodedata.normalize("NFC", text)
    of_system = [font for font in map(_of_system, FONTS) if font is not None]
    fonts: list[Font] = [own(), *of_system]
    wanted = [character for character in plain if not character.isspace()]
    for font in fonts:
        if all(_has(font, character) for character in wanted):
            return Lettered(plain, font, whole=True)
    best = max(fonts, key=lambda font: sum(_has(font, character) for character in wanted))
    spelled = "".join(c if c.isspace() or _has(best, c) else _spelled(best, c) for c in plain)
    return Lettered(spelled, best, whole=False)


@functools.cache
def own() -> Font:
    """Return the font that comes with Pillow."""
    return ImageFont.load_default(SIZE)


@functools.cache
def _of_system(name: str) -> Font | None:
    try:
        return ImageFont.truetype(name, SIZE)
    except OSError:  # not there, or no font
        return None


@functools.cache
def _has(font: Font, character: str) -> bool:
    """Tell whether a font has a character: it draws it differently from those that it lacks."""
    return bytes(font.getmask(character)) != bytes(font.getmask(NO_CHARACTER))


def _spelled(font: Font, character: str) -> str:
    """Return letters for a character: the letter without accents, else its number."""
    base = [c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c)]
    if base and all(_has(font, c) for c in base):
        return "".join(base)
    return ascii(character)[1:-1]
