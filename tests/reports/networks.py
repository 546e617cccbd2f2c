"""Networks whose operations a page's engine knows: the package's, and such as users build."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepcnn.models.build import build_model
from deepcnn.models.layers import LocallyConnected2d

Shape = tuple[int, int, int]


class Change(nn.Module):
    """A function as a layer."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._change = change

    def forward(self, x: Tensor) -> Tensor:
        return self._change(x)


class Residual(nn.Module):
    """As a user writes one: functions, sums in place, dropout, pooling by a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding="same", groups=4)
        self.wide = nn.Conv2d(8, 8, 2, padding="same", dilation=2)
        self.gain = nn.Parameter(torch.linspace(0.5, 1.5, 8)[:, None, None])
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x)), inplace=True)
        shortcut = x
        x = self.gain * F.gelu(self.second(x))
        x += shortcut
        x = F.dropout(F.leaky_relu(self.wide(x), 0.2), 0.5, self.training)
        x = 2 * (x - 0.25) / 3 + 1
        logits: Tensor = self.head(x.mean(dim=(-2, -1)))
        return logits


def own(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*layers)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    "tutorial": (lambda: build_model("tutorial", widths=(8, 8, 16, 16)), (3, 24, 24)),
    "tutorial, odd sides": (
        lambda: build_model("tutorial", shape=(1, 27, 21), widths=(4, 8, 8, 8)),
        (1, 27, 21),
    ),
    "speednet": (lambda: build_model("speednet", widths=(8, 12, 16)), (3, 32, 32)),
    "speednet, odd sides": (
        lambda: build_model("speednet", shape=(1, 27, 21), widths=(4, 8, 8)),
        (1, 27, 21),
    ),
    "residual_speednet": (
        lambda: build_model("residual_speednet", widths=(8, 12, 16)),
        (3, 32, 32),
    ),
    "mlp": (lambda: build_model("mlp", shape=(1, 28, 28), widths=(16, 8)), (1, 28, 28)),
    "cuda_convnet": (lambda: build_model("cuda_convnet", widths=(8, 8, 6, 4)), (3, 24, 24)),
    "cuda_convnet, odd sides": (
        lambda: build_model("cuda_convnet", shape=(1, 27, 21), widths=(4, 8, 5, 3)),
        (1, 27, 21),
    ),
    "own, locally connected": (
        own(
            LocallyConnected2d(3, 4, (3, 2), size=(17, 14), padding=(2, 0), bias=False),
            nn.Tanh(),
            LocallyConnected2d(4, 5, (19, 13), size=(19, 13)),
            nn.Flatten(),
        ),
        (3, 17, 14),
    ),
    "own, residual": (Residual, (3, 17, 14)),
    "own, one after the other": (
        own(
            nn.Conv2d(3, 6, (3, 2), padding=(0, 1)),
            nn.ReLU(inplace=True),
            nn.BatchNorm2d(6),
            nn.MaxPool2d(3, 2, 1, ceil_mode=True),
            nn.LocalResponseNorm(4, alpha=0.1, k=2.0),
            nn.Dropout2d(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(6 * 4 * 4, 9),
            nn.Tanh(),
            nn.Dropout(),
            nn.Linear(9, 5),
        ),
        (3, 17, 14),
    ),
    "own, to one pixel": (
        own(
            nn.Conv2d(3, 6, 5, stride=3),
            nn.SiLU(),
            nn.AdaptiveMaxPool2d(1),
            nn.Conv2d(6, 5, 1),
            nn.Sigmoid(),
            Change(lambda x: x.view(len(x), -1)),
        ),
        (3, 17, 14),
    ),
    "own, other ways to flatten": (
        own(
            nn.Conv2d(3, 4, 3),
            Change(lambda x: x.permute(0, 2, 3, 1).reshape(x.shape[0], -1)),
            nn.Linear(15 * 12 * 4, 6, bias=False),
            nn.BatchNorm1d(6),
            nn.LeakyReLU(),
            nn.Linear(6, 5),
        ),
        (3, 17, 14),
    ),
}


def as_trained(name: str) -> tuple[nn.Module, Shape]:
    """Return a network whose statistics and biases are not the initial ones, in training mode."""
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    model = build().train()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
            bias = getattr(module, "bias", None)
            if isinstance(bias, Tensor):
                bias.normal_(0, 0.3, generator=generator)
            # so large that images are told apart
            if isinstance(module, nn.Conv2d | nn.Linear):
                deviation = (2 / module.weight[0].numel()) ** 0.5
                module.weight.normal_(0, deviation, generator=generator)
            elif isinstance(module, LocallyConnected2d):
                seen = module.weight[:, 0, 0, 0].numel()
                module.weight.normal_(0, (2 / seen) ** 0.5, generator=generator)
    return model, shape
