"""Classifies by raw pixels, with scikit-learn: logistic regression, SVM, nearest neighbours.

    python raw_pixels.py SET [SIDE]

SET: a folder with train/, val/ and test/, each with a folder for each class, or an .npz with
train_images, train_labels and so on. Pictures in folders are brought to SIDE × SIDE pixels (32).
What each method can choose (C, the number of neighbours) is chosen on val; the last line of the
output, JSON, tells the right answers on test of each, and on val.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

CHOICES = {
    "logistic regression": [
        make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=100))
        for c in (0.01, 0.001, 0.1, 1)
    ],
    "support vector machine": [SVC(C=c) for c in (10, 1, 100)],
    "nearest neighbours": [KNeighborsClassifier(n_neighbors=k) for k in (1, 5)],
}
FEW = 12_000  # examples with which everything is tried; with more, the first choice of each


def main(path: Path, side: int) -> None:
    """Fit all, and print what each came to."""
    splits = read_npz(path) if path.suffix == ".npz" else read_folders(path, side)
    (x, y), val, test = splits
    found: dict[str, object] = {"train": len(y), "val": len(val[1]), "test": len(test[1])}
    for name, choices in CHOICES.items():
        began = time.process_time()
        tried = choices if len(y) <= FEW else choices[:1]
        fitted = [(choice.fit(x, y)) for choice in tried]
        scores = [right(each, *val) for each in fitted]
        best = fitted[int(np.argmax(scores))]
        found[name] = {
            "chosen": str(best[-1] if hasattr(best, "steps") else best),
            "val": max(scores),
            "test": right(best, *test),
            "balanced": round(balanced(best, *test), 4),
            "cpu seconds": round(time.process_time() - began, 1),
        }
        print(name, found[name], flush=True)
    print(json.dumps(found))


def right(fitted, images, labels) -> int:
    """Return how many answers are right."""
    return int((fitted.predict(images) == labels).sum())


def balanced(fitted, images, labels) -> float:
    """Return the mean over the classes of the share of right answers."""
    answers = fitted.predict(images)
    return float(np.mean([(answers == labels)[labels == k].mean() for k in np.unique(labels)]))


def read_npz(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return images, float32 [N, values], 0 to 1, and labels of each split."""
    with np.load(path) as file:
        return [flat(file[f"{s}_images"], file[f"{s}_labels"]) for s in ("train", "val", "test")]


def read_folders(path: Path, side: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the same of pictures in folders."""
    classes = sorted(folder.name for folder in (path / "train").iterdir())
    splits = []
    for split in ("train", "val", "test"):
        images, labels = [], []
        for label, name in enumerate(classes):
            for file in sorted((path / split / name).iterdir()):
                with Image.open(file) as picture:
                    images.append(np.asarray(picture.resize((side, side), Image.Resampling.BOX)))
                labels.append(label)
        splits.append(flat(np.stack(images), np.array(labels)))
    return splits


def flat(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return images as rows of float32, 0 to 1."""
    return images.reshape(len(images), -1).astype(np.float32) / 255, labels


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 32)
