"""Opens the splits of a set of encoded pictures, all in one form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from deepcnn.data.formats import pictures
from deepcnn.data.splits import Opener, Split
from deepcnn.events import LeftOut, Listener, Noted, Reading
from deepcnn.settings import DataSpec
from deepcnn.shown import shown

Parts = Callable[[], Sequence[pictures.Pictures]]  # opens the pictures of a split, file by file


def openers(parts: Mapping[Split, Parts], spec: DataSpec, emit: Listener) -> dict[Split, Opener]:
    """Return the functions that open the splits; all splits get the form of the first one.

    From `spec`, the image size, `fit` and `skip_bad` are used, see `pictures.prepare_all`. `emit`
    hears of pictures that are left out, and of rules that change some. A split is inspected once.
    """
    said: set[str] = set()  # rules, each once for all splits
    prepared: dict[Split, tuple[pictures.PictureShard, ...]] = {}
    first = next(iter(parts), None)

    def prepare(split: Split) -> tuple[pictures.PictureShard, ...]:
        if split not in prepared:
            found = pictures.prepare_all(
                parts[split](),
                form=None if split == first else prepare(first)[0].form,  # type: ignore[arg-type]
                image_size=spec.image_size,
                fit=spec.fit,
                skip_bad=spec.skip_bad,
                progress=lambda done, total: emit(Reading(f"looking at {split}", done, total)),
            )
            for where, reason in found.bad.items():
                text = f"left out {shown(where)}: {reason}"
                emit(LeftOut(text, str(where), reason))
            for rule in [rule for rule in found.rules if rule not in said]:
                emit(Noted(f"{shown(spec.data)}: {found.rules[rule]}"))
            said.update(found.rules)
            prepared[split] = found.shards
        return prepared[split]

    return {split: lambda split=split: prepare(split) for split in parts}  # type: ignore[misc]
