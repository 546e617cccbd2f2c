"""What a network calls when it is called: functions of torch, and in which of its layers."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class CallRecorder(TorchFunctionMode):
    """Sees every function of torch that a network calls; what is taken down is up to subclasses.

    `layers`: the names of the modules whose forward runs, the innermost last.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.layers: list[str] = []

    def call(self, images: Tensor) -> Tensor:
        """Call the network without gradients, and return what it answers."""
        hooks = []
        for name, module in self.model.named_modules():
            hooks.append(module.register_forward_pre_hook(partial(self._enter, name)))
            hooks.append(module.register_forward_hook(self._leave))
        try:
            with torch.no_grad(), self:
                answer: Tensor = self.model(images)
                return answer
        finally:
            for hook in hooks:
                hook.remove()

    def entered(self, module: nn.Module) -> None:
        """Take notice of a layer whose forward begins."""

    def left(self, module: nn.Module, given: tuple[Any, ...], result: Any) -> None:
        """Take notice of a layer whose forward ends, of what it was given, and of its result."""

    def _enter(self, name: str, module: nn.Module, *_: Any) -> None:
        self.layers.append(name)
        self.entered(module)

    def _leave(self, module: nn.Module, given: tuple[Any, ...], result: Any) -> None:
        self.left(module, given, result)
        self.layers.pop()
