"""The content of a report's page for its template: words, tables, figures, pictures."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from deepcnn.data.catalog import CATALOG
from deepcnn.data.enough import majority, senseless
from deepcnn.data.shards import by
from deepcnn.errors import RunError
from deepcnn.events import RolledBack
from deepcnn.inference.about import name_of_data
from deepcnn.intervals import interval, wilson
from deepcnn.reports import commands
from deepcnn.reports.curves import Log, by_threshold, curves, reliability
from deepcnn.reports.filters import first_filters
from deepcnn.reports.findings import SAMPLES, SHAPES, TOP, Findings, Subject, baseline
from deepcnn.reports.measures import Bools
from deepcnn.reports.pictures import data_uri, for_display, in_base64, sheet
from deepcnn.runs.log import events
from deepcnn.runs.run import ENVIRONMENT

MOST_IN_MATRIX = 40  # classes of a matrix that is still read
CONFUSED = 6  # pairs of classes that are named before the matrix
CONFUSED_ALONE = 60  # where there is no matrix
IN_TABLE = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)  # thresholds
DISTORTED = 3  # times that each sample is
SHEET = 12  # filters in a row
SECTIONS = (
    ("box", "Try a picture"),
    ("curves", "How it learned"),
    ("confusion", "Confusions"),
    ("classes", "Classes"),
    ("sure", "Sureness"),
    ("mistakes", "Mistakes"),
    ("inputs", "Inputs"),
    ("facts", "Settings"),
)

View = dict[str, Any]


def view(subject: Subject, found: Findings, log: Log, demo: View) -> View:
    """Return the values for the template `report.html`."""
    config = subject.trained.config
    pictures = in_base64(found.seen, found.chosen.all) if found.seen.pixels else {}
    page: View = {
        "title": f"{config.preset} on {name_of_data(config)}",
        "preset": config.preset,
        "total": found.total,
        "size": (subject.source.shape[1], subject.source.shape[0]),
        "classes": subject.classes,
        "demo": demo,
        "curves": curves(log),
        **_verdict(subject, found),
        **_confusion(subject, found, pictures),
        **_classes(subject, found),
        **_sureness(subject, found),
        **_mistakes(subject, found, pictures),
        "strips": _strips(subject, found),
        **_facts(subject, found),
    }
    page["notes"] += [each.text for each in rollbacks(log)]
    page["tiles"] = _tiles(subject, found, log)
    empty = {name for name in ("curves", "mistakes") if not page[name]}
    empty |= set() if page["strips"] else {"inputs"}
    page["sections"] = [pair for pair in SECTIONS if pair[0] not in empty]
    return page


def rollbacks(log: Log) -> list[RolledBack]:
    """Return the rollbacks of a training to a checkpoint, each once.

    A run that was killed before the next checkpoint goes back again, and logs it again.
    """
    names = [field.name for field in dataclasses.fields(RolledBack)]
    found: list[dict[str, Any]] = [
        {name: each.get(name) for name in names} for each in events(log, "RolledBack")
    ]
    return [RolledBack(**each) for n, each in enumerate(found) if each not in found[:n]]


def percent(part: int, whole: int, digits: int = 1) -> str:
    """Return a share in percent."""
    return f"{100 * part / whole:.{digits}f}\u00a0%" if whole else "–"


def shown(probability: float) -> str:
    """Return a probability in percent."""
    return f"{100 * probability:.1f}\u00a0%"


def _verdict(subject: Subject, found: Findings) -> View:
    answered, config = subject.answered, subject.trained.config
    largest, by_luck = baseline(subject)
    low, high = wilson(found.correct, found.total)
    what = "training" if answered.split == "train" else answered.split
    notes = []
    if subject.scored_on is not None:
        notes.append(f"Scored on {subject.scored_on}, not where the run has its data.")
    if found.not_numbers:
        notes.append(f"{found.not_numbers:,} answers are no numbers, and count as wrong.")
    if answered.split == "train":
        notes.append("These are images that the network was trained on: others it knows less well.")
    of_class = found.table.sum(1).tolist()
    counts = {**subject.trained.trained_on.counts, answered.split: of_class}
    notes += senseless(subject.classes, counts)
    if luck := majority(what, found.correct, of_class):
        notes.append(luck)
    if subject.leaked is not None and answered.split != "train" and subject.leaked.any():
        notes.append(_without_leaked(subject.leaked, found))
    kind = ", with the moving averages of its parameters" if answered.averaged else ""
    held_out = (
        f" They were held out of the training set ({config.validation_choice}, seed "
        f"{config.validation_seed})."
        if answered.split == "validation" and config.validation_size
        else ""
    )
    return {
        "accuracy": percent(found.correct, found.total, 2),
        "verdict": (
            f"of the {what} images are answered rightly: {found.correct:,} of {found.total:,}, "
            f"95\u00a0% interval {100 * low:.1f} to {100 * high:.1f}\u00a0%. Always saying "
            f"“{subject.classes[largest]}”, the largest class, would be right for "
            f"{percent(by_luck, found.total)}."
        ),
        "context": (
            f"Run {subject.run.path.resolve().name}, step {answered.step:,} of {config.steps:,}"
            f"{kind}.{held_out}"
        ),
        "notes": notes,
    }


def _without_leaked(leaked: Bools, found: Findings) -> str:
    count, total = int(leaked.sum()), int((~leaked).sum())
    right = int(found.right[~leaked].sum())
    be = "is" if count == 1 else "are"
    text = f"{count:,} of these images {be} in the training set, too, pixel for pixel."
    if total:
        text += (
            f" Without them the accuracy is {percent(right, total, 2)} ({right:,} of {total:,}, "
            f"95\u00a0% interval {interval(right, total)})."
        )
    return text


def _tiles(subject: Subject, found: Findings, log: Log) -> list[tuple[str, str, str]]:
    whole, classes = found.total, len(subject.classes)
    counted = {1: found.correct} | ({TOP: found.within(TOP)} if classes > TOP else {})
    tiles = [
        (
            f"Top-{top} accuracy",
            percent(right, whole, 2),
            f"{right:,} of {whole:,}, {_short_interval(right, whole)}",
        )
        for top, right in counted.items()
    ]
    sureness = found.sureness
    if sureness.error_after is not None:
        detail = f"{100 * sureness.error_before:.1f}\u00a0% before the temperature"
        tiles.append(("Calibration error", f"{100 * sureness.error_after:.1f}\u00a0%", detail))
    parameters = sum(p.numel() for p in subject.trained.model.parameters())
    tiles.append(("Parameters", f"{parameters:,}", subject.trained.config.model.name))
    if finished := events(log, "Finished"):
        seconds = sum(float(event["seconds"]) for event in finished[-1:])
        environment = _environment(subject)
        threads = environment.get("threads", "?")
        where = f"{environment.get('device', '')}, {threads} thread{'s' * (threads != 1)}"
        tiles.append(("Training", f"{seconds:,.0f} s", where))
    return tiles


def _short_interval(part: int, whole: int) -> str:
    return f"95 %: {interval(part, whole).strip('()')}".replace(" ", "\u00a0")


def _confusion(subject: Subject, found: Findings, pictures: dict[int, str]) -> View:
    table, names = found.table, subject.classes
    given = table.sum(1)
    cells: dict[str, View] = {}
    png: dict[int, str] = {}
    for (row, column), members in found.chosen.cells.items():
        here = [index for index in members if index in pictures]
        if here:
            said = [shown(found.chances[index][column]) for index in here]
            cells[f"{row},{column}"] = {
                "count": int(table[row, column]),
                "pictures": list(zip(here, said, strict=True)),
            }
            png |= {index: pictures[index] for index in here}
    small = len(names) <= MOST_IN_MATRIX
    wrong = table - np.diag(np.diag(table))
    most = min(CONFUSED if small else CONFUSED_ALONE, int((wrong > 0).sum()))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most].tolist()
    confused = []
    for row, column in (divmod(place, len(names)) for place in order):
        key = f"{row},{column}"
        confused.append(
            {
                "given": names[row],
                "label": names[column],
                "count": int(wrong[row, column]),
                "of": int(given[row]),
                "cell": key if key in cells else None,
            }
        )
    shares = table / np.maximum(1, given)[:, None]
    most_wrong = max(float((shares - np.diag(np.diag(shares))).max()), 1e-9)
    matrix = [
        [
            {
                "count": int(count),
                # The rare mistakes are to be told apart as well.
                "shade": f"{share if row == column else (share / most_wrong) ** 0.5:.2f}",
                "pictures": f"{row},{column}" in cells,
            }
            for column, (count, share) in enumerate(zip(counts, shares[row], strict=True))
        ]
        for row, counts in enumerate(table)
    ]
    inside = len(png)
    return {
        "confused": confused,
        "matrix": matrix if small else None,
        "cells": {"classes": names, "cells": cells, "png": png},
        "pictures_note": (
            f"{inside:,} of {found.total:,} pictures are in this page."
            if inside
            else "There are no pictures in this page."
        ),
    }


def _classes(subject: Subject, found: Findings) -> View:
    return {
        "by_class": [
            {
                "name": name,
                "given": each.given,
                "answered": each.answered,
                "right": each.right,
                "precision": each.precision,
                "recall": each.recall,
                "f1": each.f1,
                "interval": interval(each.right, each.given),
            }
            for name, each in zip(subject.classes, found.of_class, strict=True)
        ]
    }


def _sureness(subject: Subject, found: Findings) -> View:
    sureness, calibration = found.sureness, subject.answered.calibration
    before = f"Expected calibration error {100 * sureness.error_before:.2f}\u00a0%"
    after, words = "", []
    if sureness.fitted is not None and sureness.error_after is not None:
        before += " before"
        one, other = sureness.fitted.temperatures
        after = (
            f"and {100 * sureness.error_after:.2f}\u00a0% after a temperature, which each half of "
            f"the split has from the other ({one:.3f} and {other:.3f})."
        )
    else:
        before += "."
        words.append(f"{found.total:,} examples are too few to tell a temperature or a threshold.")
    least = calibration.least_probability if calibration is not None else None
    caption = "What is answered if less sure answers are refused, and how many of those are right."
    return {
        "sure": [
            reliability(sureness.before, sureness.after, (before, after)),
            by_threshold(found.thresholds, least, caption),
        ],
        "sure_words": words + _unsure_words(subject, found),
        "thresholds": [
            {
                "threshold": f"{each.threshold:.2f}",
                "answered": each.answered,
                "right": each.right,
                "interval": interval(each.right, each.answered),
            }
            for each in found.thresholds
            if round(each.threshold, 4) in IN_TABLE
        ],
    }


def _unsure_words(subject: Subject, found: Findings) -> list[str]:
    calibration, fitted = subject.answered.calibration, found.sureness.fitted
    if calibration is None or calibration.least_probability is None:
        return []
    asked, least = f"{100 * calibration.error:g}\u00a0%", calibration.least_probability
    words = [
        f"The run’s own temperature is {calibration.temperature:.3f}, from "
        f"{calibration.examples:,} {calibration.split} images."
    ]
    if least > 1:
        words[0] += f" No answer is sure enough for an error of {asked}: all are unsure."
    else:
        words[0] += (
            f" It calls an answer unsure that is less likely than {least:.3f}, so that at most "
            f"{asked} of the others are wrong."
        )
    error, unknown = found.doubtful("error"), found.doubtful("unknown")
    words.append(
        f"Of this split’s {found.total:,} images that makes {error:,} "
        f"({percent(error, found.total)}) unsure as too likely to be wrong, and {unknown:,} "
        f"({percent(unknown, found.total)}) as unlike all that was learned."
    )
    if fitted is not None and fitted.answered:
        right = fitted.answered - fitted.wrong
        words.append(
            f"With a threshold that each half has from the other, {fitted.answered:,} "
            f"({percent(fitted.answered, found.total)}) are answered, and of those "
            f"{fitted.wrong:,} are wrong: accuracy {percent(right, fitted.answered, 2)} "
            f"{interval(right, fitted.answered)}."
        )
    return words


def _mistakes(subject: Subject, found: Findings, pictures: dict[int, str]) -> View:
    names, labels = subject.classes, subject.answered.labels
    surest = [
        {
            "index": index,
            "png": pictures[index],
            "given": names[int(labels[index])],
            "given_percent": shown(found.chances[index][labels[index]]),
            "label": names[int(found.predicted[index])],
            "percent": shown(found.chances[index].max()),
        }
        for index in found.chosen.mistakes
        if index in pictures
    ]
    wrong = found.total - found.correct
    return {
        "mistakes": surest,
        "mistakes_note": (
            f"The {len(surest)} surest of {wrong:,} wrong answers, with their probabilities. "
            "Labels can be wrong as well."
        ),
    }


@torch.no_grad()
def _strips(subject: Subject, found: Findings) -> list[View]:
    """Return pictures as they are, as the network gets them, and distorted; and its filters."""
    transform, strips = subject.trained.trained_on.transform, []
    if found.seen.pixels:
        images = np.stack([found.seen.pixels[index] for index in found.samples])
        there = torch.from_numpy(images)
        strips.append(_strip(images, f"{len(images)} images of the split, as they are."))
        seen = transform.evaluate(there).permute(0, 2, 3, 1).numpy()
        what = f"The same as the network sees them: {by(seen.shape[1:])}, standardized."
        strips.append(_strip(for_display(seen), what))
        index = torch.arange(len(images))
        rows = []
        for epoch in range(DISTORTED):
            draws = transform.draw(
                subject.trained.config.seed,
                index=index,
                epoch=torch.full_like(index, epoch),
                position=index,
            )
            rows.append(transform.train(there, draws).permute(0, 2, 3, 1).numpy())
        what = f"The same as a training distorts them, in {DISTORTED} epochs."
        strips.append(_strip(for_display(np.concatenate(rows)), what, across=len(images)))
    filters = first_filters(subject.trained)
    if filters is not None and filters.shape[3] in SHAPES:
        what = f"{len(filters)} filters of the first layer, {by(filters.shape[1:])}; gray is 0."
        strips.append(_strip(for_display(filters, around_zero=True), what, SHEET))
    return strips


def _strip(
    images: np.ndarray[Any, np.dtype[np.uint8]], caption: str, across: int = SAMPLES
) -> View:
    # About 64 units for each picture and 36 for a filter, by whole pixels so that they stay sharp.
    side = max(images.shape[1:3])
    zoom = max(1, round((64 if side > 12 else 36) / side))
    if side <= 12:  # enlarged in the picture itself: what parts filters is finer than their pixels
        images, zoom = images.repeat(zoom, 1).repeat(zoom, 2), 1
        made = sheet(images, across, gap=4, ground=200)
    else:
        made = sheet(images, across)
    return {
        "src": data_uri(made),
        "caption": caption,
        "width": made.shape[1] * zoom,
        "height": made.shape[0] * zoom,
    }


def _facts(subject: Subject, found: Findings) -> View:
    config, on = subject.trained.config, subject.trained.trained_on
    split = subject.answered.split
    data = [("name or path", config.data), ("image", by(subject.source.shape))]
    if subject.scored_on is not None:
        data.insert(1, ("scored on", subject.scored_on))
    data += [
        (f"{name} examples", f"{sum(counts):,} of {len(on.classes):,} classes")
        for name, counts in on.counts.items()
        if counts
    ]
    if on.began_with is not None:
        data.append(("initial weights", on.began_with.described()))
    if config.data in CATALOG:
        entry = CATALOG[config.data]
        data += [(f"SHA-256 of {file.name}", file.sha256) for file in entry.files]
    data.append((f"SHA-256 of the {split} pixels, then labels", found.seen.sha256))
    return {
        "data": data,
        "commands": commands.repeating(config, subject.run.path, fed=on.fed_by is not None),
        "settings": commands.settings(config),
        "environment": [(name, str(value)) for name, value in _environment(subject).items()],
    }


def _environment(subject: Subject) -> View:
    try:
        return subject.run.read(ENVIRONMENT)
    except RunError:
        return {}
