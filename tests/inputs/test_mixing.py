from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from deepcnn.inputs import mixing
from deepcnn.inputs.draws import Draws, hashed

COUNT = 20_000


def draws_of(mixup: float, cutmix: float, count: int = COUNT) -> Draws:
    position = torch.arange(count)
    bits = hashed(1, mixing.STREAMS, torch.full_like(position, 4), position)
    nothing = torch.zeros_like(position)
    found = mixing.draw(mixup, cutmix, bits)
    return Draws(row=nothing, column=nothing, flip=nothing > 0, **found)


@pytest.mark.parametrize("alpha", [1e-3, 0.1, 0.2, 0.5, 1.0, 1.7, 8.0, 1e4])
def test_shares_have_the_beta_distribution(alpha: float) -> None:
    share = draws_of(alpha, 0).share
    assert share is not None
    assert share.dtype == torch.float32
    assert bool(((share >= 0) & (share <= 1)).all())
    # Kolmogorov and Smirnov's statistic, where float32 tells shares from 0 and from 1.
    law = stats.beta(alpha, alpha)
    at = np.clip(law.ppf(np.linspace(0, 1, 1001)), 1e-6, 1 - 1e-6)
    below = np.searchsorted(np.sort(share.double().numpy()), at, side="right") / COUNT
    assert np.abs(below - law.cdf(at)).max() < stats.kstwo(COUNT).ppf(0.99)


def test_pasted_rectangles_have_the_papers_place_and_area() -> None:
    """The middle is even over the image; the area is 1 - share, where it does not reach out."""
    draws = draws_of(0, 1.0)
    assert draws.share is not None
    assert draws.pasted is not None
    assert bool(draws.pasted.all())
    assert draws.paste_row is not None
    assert draws.paste_column is not None
    for middle in (draws.paste_row, draws.paste_column):
        assert stats.kstest(middle.double().numpy(), "uniform").pvalue > 0.01
    assert stats.kstest(draws.share.double().numpy(), "uniform").pvalue > 0.01  # alpha of 1
    both = np.corrcoef([v.numpy() for v in (draws.share, draws.paste_row, draws.paste_column)])
    assert np.abs(both - np.eye(3)).max() < 0.03


def test_with_both_each_image_gets_one_with_equal_chances() -> None:
    draws, blended, pasted = draws_of(0.4, 3.0), draws_of(0.4, 0), draws_of(0, 3.0)
    assert draws.share is not None
    assert draws.pasted is not None
    assert blended.share is not None
    assert pasted.share is not None
    assert torch.equal(draws.share, torch.where(draws.pasted, pasted.share, blended.share))
    assert abs(int(draws.pasted.sum()) - COUNT / 2) < 3 * (COUNT / 4) ** 0.5
    assert blended.pasted is None


def by_definition(
    images: Tensor, labels: Tensor, draws: Draws, classes: int
) -> tuple[Tensor, Tensor]:
    """A batch mixed in float64, image by image, each with the one before it but the first."""
    x, height, width = images.double(), *images.shape[2:]
    mixed, soft = x.clone(), torch.zeros(len(x), classes, dtype=torch.float64)
    assert draws.share is not None
    for i in range(1, len(x)):
        share = float(draws.share[i])
        if draws.pasted is not None and draws.pasted[i]:
            assert draws.paste_row is not None
            assert draws.paste_column is not None
            down, across = float(draws.paste_row[i]), float(draws.paste_column[i])
            half = (1 - share) ** 0.5 / 2
            top, bottom = (
                int(np.clip(np.rint((down + s * half) * height), 0, height)) for s in (-1, 1)
            )
            left, right = (
                int(np.clip(np.rint((across + s * half) * width), 0, width)) for s in (-1, 1)
            )
            mixed[i, :, top:bottom, left:right] = x[i - 1, :, top:bottom, left:right]
            share = 1 - (bottom - top) * (right - left) / (height * width)
        else:
            mixed[i] = share * x[i] + (1 - share) * x[i - 1]
        soft[i, labels[i]] += share
        soft[i, labels[i - 1]] += 1 - share
    return mixed[1:], soft[1:]


@pytest.mark.parametrize("alphas", [(0.3, 0.0), (0.0, 1.0), (1.0, 0.6)])
def test_mixed_images_and_labels_are_those_of_the_papers(alphas: tuple[float, float]) -> None:
    generator = torch.Generator().manual_seed(0)
    steps, examples = 3, 41  # of each step one is only mixed into the next
    images = torch.randn(steps * examples, 3, 12, 9, generator=generator)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 5, (len(images),), generator=generator)
    draws = draws_of(*alphas, len(images))
    found, soft = mixing.mix(images, labels, draws, steps=steps, classes=5)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert found.dtype == soft.dtype == torch.float32
    for step in range(steps):
        rows = slice(step * examples, (step + 1) * examples)
        mine = Draws(**{name: values[rows] for name, values in draws.made().items()})
        expected, shares = by_definition(images[rows], labels[rows], mine, 5)
        out = slice(step * (examples - 1), (step + 1) * (examples - 1))
        torch.testing.assert_close(found[out].double(), expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(soft[out].double(), shares, rtol=0, atol=1e-6)
