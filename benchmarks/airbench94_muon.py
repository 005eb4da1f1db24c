"""The record recipe airbench94_muon in PyTorch, as a peer for time_to_accuracy and step.

Written from its description (Keller Jordan, github.com/KellerJordan/cifar10-airbench): the same
network, optimizers, schedules, augmentation and views. On a GPU it computes in half precision, on a
processor in bfloat16 through autocast; nothing is compiled with torch.compile, which on a processor
made it slower. Nothing else is changed, so that it stays what it is: 8 epochs of batches of 2,000.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - what PyTorch's users call it
from torch import Tensor, nn

from tinylens.data.dataset import Dataset, Splits

WIDTHS = (64, 256, 256)
BATCH, EPOCHS = 2_000, 8
WHITENING_EPOCHS = 3  # after as many the bias of the first layer stops
WHITENING_SAMPLE = 5_000
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Group(nn.Module):
    """Convolution, pooling, norm, GELU, convolution, norm, GELU."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.first = _identity_like(width_in, width)
        self.second = _identity_like(width, width)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, eps=1e-12, momentum=0.4) for _ in range(2))
        for norm in self.norms:
            norm.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norms[0](F.max_pool2d(self.first(x), 2)))
        return F.gelu(self.norms[1](self.second(x)))


class Network(nn.Module):
    """Whitening, three groups, and a head without bias."""

    def __init__(self, sample: Tensor) -> None:
        super().__init__()
        self.whitening = nn.Conv2d(3, 24, 2)
        self.whitening.weight = nn.Parameter(_whitening(sample), requires_grad=False)
        widths = (24, *WIDTHS)
        self.groups = nn.Sequential(*(Group(a, b) for a, b in zip(widths, WIDTHS, strict=False)))
        self.head = nn.Linear(WIDTHS[-1], 10, bias=False)
        with torch.no_grad():
            self.head.weight.div_(self.head.weight.std())

    def forward(self, x: Tensor, *, frozen: bool = True) -> Tensor:
        bias = self.whitening.bias.detach() if frozen else self.whitening.bias
        x = self.groups(F.gelu(F.conv2d(x, self.whitening.weight, bias)))
        return self.head(F.max_pool2d(x, 3).flatten(1)) / x.size(1)


def _identity_like(width_in: int, width: int) -> nn.Conv2d:
    layer = nn.Conv2d(width_in, width, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(layer.weight[:width_in])
    return layer


def _whitening(sample: Tensor) -> Tensor:
    patches = F.unfold(sample, 2).transpose(1, 2).reshape(-1, 12).double()
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors / (values + 5e-4).sqrt()).T.flip(0).reshape(12, 3, 2, 2).float()
    return torch.cat([filters, -filters])


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal by three Newton-Schulz steps, on kernels kept at one norm."""

    def __init__(self, kernels: list[nn.Parameter], lr: float, momentum: float) -> None:
        super().__init__(kernels, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for kernel in group["params"]:
                buffer = self.state[kernel].setdefault("buffer", torch.zeros_like(kernel))
                buffer.mul_(group["momentum"]).add_(kernel.grad)
                update = kernel.grad.add(buffer, alpha=group["momentum"])
                kernel.mul_(len(kernel) ** 0.5 / kernel.norm())
                kernel.add_(_orthogonal(update), alpha=-group["lr"])


def _orthogonal(update: Tensor) -> Tensor:
    matrix = update.reshape(len(update), -1)
    x = matrix.to(torch.float16 if DEVICE == "cuda" else torch.bfloat16)
    x = x / (x.norm() + 1e-7)
    tall = x.size(0) > x.size(1)
    x = x.T if tall else x
    for _ in range(3):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x.T if tall else x).reshape(update.shape).to(update.dtype)


def train(data: Splits, seed: int, epochs: int = EPOCHS) -> dict[str, Any]:
    """Train once and return seconds and accuracies on test, with one view and with six."""
    torch.manual_seed(seed)
    images, labels = _tensors(data.train)
    test, test_labels = _tensors(data.test)
    begun = time.perf_counter()
    trained, network = (
        0.0,
        Network(images[:WHITENING_SAMPLE]).to(DEVICE, memory_format=torch.channels_last),
    )
    for _ in steps(network, images, labels, epochs):
        trained = time.perf_counter() - begun
    network.eval()
    curve = []
    for tta_views in (1, 6):
        looked = time.perf_counter()
        answers = [_answer(network, part, tta_views) for part in test.split(BATCH)]
        accuracy = (torch.cat(answers).argmax(1) == test_labels).double().mean().item()
        seconds = trained + time.perf_counter() - looked
        curve.append({"seconds": round(seconds, 2), "accuracy": accuracy, "views": tta_views})
    return {"curve": curve, "best": curve[0], "trained_seconds": round(trained, 2)}


def steps(network: Network, images: Tensor, labels: Tensor, epochs: int = EPOCHS) -> Iterator[int]:
    """Train `network`, and yield after every step how many were done."""
    per_epoch = max(len(images) // BATCH, 1)
    total, warm = epochs * per_epoch, WHITENING_EPOCHS * per_epoch
    kernels = [p for p in network.parameters() if p.ndim == 4 and p.requires_grad]
    biases = [norm.bias for group in network.groups for norm in group.norms]
    decay = 2e-6 * BATCH
    groups = [
        {"params": [network.whitening.bias], "lr": 0.053, "weight_decay": decay / 0.053},
        {"params": biases, "lr": 0.053, "weight_decay": decay / 0.053},
        {"params": [network.head.weight], "lr": 0.67, "weight_decay": decay / 0.67},
    ]
    descent = torch.optim.SGD(groups, momentum=0.85, nesterov=True)
    optimizers = [descent, Muon(kernels, lr=0.24, momentum=0.6)]
    rates = [group["lr"] for each in optimizers for group in each.param_groups]
    turned = torch.rand(len(images), device=images.device) < 0.5
    network.train()
    for step in range(total):
        if step % per_epoch == 0:
            shown = _augmented(images, turned ^ (step // per_epoch % 2 == 1))
            order = torch.randperm(len(images), device=images.device)
        left = [max(1 - step / warm, 0), *[1 - step / total] * 3]
        slots = [group for each in optimizers for group in each.param_groups]
        for group, rate, share in zip(slots, rates, left, strict=True):
            group["lr"] = rate * share
        chosen = order[step % per_epoch * BATCH :][:BATCH]
        with _arithmetic():
            logits = network(shown[chosen], frozen=step >= warm)
            loss = F.cross_entropy(
                logits.float(), labels[chosen], label_smoothing=0.2, reduction="sum"
            )
        loss.backward()
        for each in optimizers:
            each.step()
            each.zero_grad(set_to_none=True)
        loss.item()  # waits for the device
        yield step + 1


def _tensors(part: Dataset) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(np.array(part.images)).to(DEVICE).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(each, device=DEVICE).view(1, 3, 1, 1) for each in (MEAN, STD))
    labels = torch.from_numpy(part.labels.astype(np.int64)).to(DEVICE)
    return ((images - mean) / std).to(memory_format=torch.channels_last), labels


def _augmented(images: Tensor, turned: Tensor, radius: int = 2) -> Tensor:
    """Return all images, some turned and each moved by up to `radius` pixels."""
    images = torch.where(turned.view(-1, 1, 1, 1), images.flip(3), images)
    side = images.size(2)
    padded = F.pad(images, (radius,) * 4, "reflect")
    moved = torch.empty_like(images)
    shifts = torch.randint(0, 2 * radius + 1, (2, len(images)), device=images.device)
    for down in range(2 * radius + 1):
        for right in range(2 * radius + 1):
            here = (shifts[0] == down) & (shifts[1] == right)
            moved[here] = padded[here, :, down : down + side, right : right + side]
    return moved


@torch.no_grad()
def _answer(network: Network, images: Tensor, tta_views: int) -> Tensor:
    with _arithmetic():
        if tta_views == 1:
            return network(images).float()
        side = images.size(2)
        padded = F.pad(images, (1,) * 4, "reflect")
        shifted = (padded[:, :, :side, :side], padded[:, :, 2:, 2:])
        pairs = [(network(x) + network(x.flip(3))).float() / 2 for x in (images, *shifted)]
        return (pairs[0] + (pairs[1] + pairs[2]) / 2) / 2


def _arithmetic() -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(DEVICE, torch.float16 if DEVICE == "cuda" else torch.bfloat16)


def step_rate(seconds: float, images: int = 4 * BATCH) -> dict[str, Any]:
    """Return images a second of its training steps on random images; the first is dropped."""
    shown = torch.randn(images, 3, 32, 32, device=DEVICE).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (images,), device=DEVICE)
    network = Network(shown).to(DEVICE, memory_format=torch.channels_last)
    ends: list[float] = []
    for _ in steps(network, shown, labels, epochs=math.ceil(1e6)):
        ends.append(time.perf_counter())
        if len(ends) > 4 and ends[-1] - ends[0] > seconds:
            break
    taken = np.diff(ends)
    rate = BATCH / float(np.median(taken))
    return {
        "backend": "torch",
        "precision": "float16" if DEVICE == "cuda" else "bfloat16",
        "batch_size": BATCH,
        "training_flops": _training_flops(),
        "gflops": round(rate * _training_flops() / 1e9, 1),
        "steps": len(taken),
        "images_per_second": round(rate, 1),
        "images_per_second_mean": round(BATCH * len(taken) / float(taken.sum()), 1),
    }


def _training_flops() -> int:
    """Return what tinylens.models.flops counts for this network: an image, the bias frozen."""
    side, width = 31, 24
    whitening = 2 * side**2 * 12 * width
    first_input = 2 * 9 * side**2 * width * WIDTHS[0]  # a gradient that nothing needs
    total = whitening - first_input + 3 * 2 * WIDTHS[-1] * 10
    for wider in WIDTHS:
        total += 3 * 2 * 9 * (side**2 * width * wider + (side // 2) ** 2 * wider**2)
        side, width = side // 2, wider
    return total
