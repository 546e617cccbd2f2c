"""Records which functions of torch a network calls, and in which of its layers."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class CallRecorder(TorchFunctionMode):
    """Sees every function of torch that a network calls; subclasses decide what to record.

    `layers`: the names of the modules whose forward is running, the innermost one last.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.layers: list[str] = []

    def call(self, images: Tensor) -> Tensor:
        """Call the network without gradients, and return its answer."""
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
        """Note that a layer's forward begins."""

    def left(self, module: nn.Module, given: tuple[Any, ...], result: Any) -> None:
        """Note that a layer's forward ends, with its arguments and its result."""

    def _enter(self, name: str, module: nn.Module, *_: Any) -> None:
        self.layers.append(name)
        self.entered(module)

    def _leave(self, module: nn.Module, given: tuple[Any, ...], result: Any) -> None:
        self.left(module, given, result)
        self.layers.pop()
