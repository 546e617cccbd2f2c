from __future__ import annotations

from pathlib import Path

import numpy as np

from deepcnn.data import survey
from deepcnn.data.arrays import Arrays
from deepcnn.data.source import in_memory
from deepcnn.shown import shown
from tests.helpers.own_data import images_of


def test_a_sheet_of_many_classes_with_hostile_names(tmp_path: Path) -> None:
    images, labels = images_of(900, 6, 9, 2, classes=300)
    names = tuple(f"\x1b[31m{i}\n" for i in range(300))
    arrays = Arrays(images, labels, names)
    heard: list[tuple[int, int]] = []
    found = survey.survey(in_memory(arrays), lambda done, total: heard.append((done, total)))
    assert heard[-1] == (900, 900)
    assert found.counts.tolist() == [3] * 300
    assert [len(some) for some in found.images] == [3] * 200
    assert np.array_equal(found.images[7][1], images[307])
    sheet = survey.draw(found)
    assert sheet.size == (150 + 12 * (63 + 4) + 4, 200 * (42 + 4) + 4)
    assert shown(names[0]) == r"'\x1b[31m0\n'"
