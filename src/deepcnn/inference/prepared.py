"""Networks prepared for prediction: the same mathematics, with nothing kept for training.

On a processor much of the time goes into moving memory, not into multiplications, since a batch's
activations are larger than the caches. So a batch is computed in blocks of images whose activations
stay in the caches, and layers are fused if this saves a pass over memory.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from deepcnn.hardware import onednn_computes, runs_triton
from deepcnn.inference.prepared_cuda_convnet import PreparedCudaConvnet
from deepcnn.inference.prepared_speednet import PreparedSpeednet, folded
from deepcnn.inference.prepared_tutorial import PreparedTutorial
from deepcnn.models.cuda_convnet import CudaConvnet
from deepcnn.models.speednet import Block, Speednet
from deepcnn.models.tutorial import Tutorial


@torch.no_grad()
def for_inference(model: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return a copy of a network of `deepcnn.models` for prediction, on the device of `model`.

    The copy maps images [N, C, H, W], of any N > 0 and memory format, to logits [N, classes]. These
    are the logits of `model` in evaluation mode, except for the order of float summation. `model`
    is not changed.

    Batch normalization is folded into the convolution before it. On a GPU with Triton, it is
    instead done in the pass over memory that pools and activates. On a processor, tutorial,
    cuda_convnet and speednet become programs of their own, which cannot be moved or trained. With
    `dtype` bfloat16 these multiply and store in bf16. Their logits are still float32, and are those
    of `model` to bf16's rounding. Other networks and devices need autocast for this.

    Raises ValueError for a batch normalization with a scale that is not positive, since it does not
    commute with the max pooling before it.
    """
    float32 = all(x.device.type == "cpu" and x.dtype == torch.float32 for x in model.parameters())
    if float32 and onednn_computes(dtype):
        if isinstance(model, Tutorial):
            return PreparedTutorial(model, dtype).eval()
        if isinstance(model, CudaConvnet):
            return PreparedCudaConvnet(model, dtype).eval()
        if isinstance(model, Speednet):
            return PreparedSpeednet(model, dtype).eval()
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    for block in copied.modules():
        if isinstance(block, Block) and not runs_triton(block.conv.weight):
            weight, bias = folded(block)
            block.conv.weight = nn.Parameter(weight, requires_grad=False)
            block.conv.bias = nn.Parameter(bias, requires_grad=False)
            block.norm = nn.Identity()  # type: ignore[assignment]
    return copied
