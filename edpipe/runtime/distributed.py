"""Several processes that train one network, as `torchrun` starts them: gloo between CPUs, nccl between GPUs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from edpipe.errors import EdpipeError, LostProcessError, TrainingError
from edpipe.runtime.threads import num_started

PATIENCE = timedelta(minutes=10)
"""How long one process waits for the others, which may still be reading their soft labels."""


class Group:
    """The processes that train together; a process alone is a group of one."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that shows progress and writes files."""
        return self.rank == 0

    def part(self, start: int, stop: int) -> tuple[int, int]:
        """This process's share of the positions start … stop-1; all shares together are these, none larger by 2.

        >>> [Group(rank, 3).part(10, 18) for rank in range(3)]
        [(10, 12), (12, 15), (15, 18)]
        """
        count = stop - start
        return start + self.rank * count // self.size, start + (self.rank + 1) * count // self.size

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network to call in training: its gradients are those of the whole batch.

        Batch normalisation layers inside the network are replaced by ones that see the whole batch.

        Raises:
            TrainingError: on a CPU, a batch normalisation of a kind that only works on a GPU across processes.
        """
        if self.size == 1:
            return network
        device = next(network.parameters()).device
        _synchronise_batch_norms(network, device)
        return DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)

    def add_up(self, values: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """The sum of all processes' values, in place.

        Raises:
            LostProcessError: one of them is gone.
        """
        if self.size > 1:
            with self.meeting():
                dist.all_reduce(values)
        return values

    def any(self, is_so: bool) -> bool:
        """Whether it is so in any of the processes; all get the same answer."""
        if self.size == 1:
            return is_so
        return bool(self.add_up(torch.tensor([float(is_so)], device=_collective_device())).item())

    def check_alike(self, what: str, number: int) -> None:
        """That all processes have the same number.

        Raises:
            TrainingError: they differ, as when they do not see the same files.
        """
        mine = torch.zeros(self.size, dtype=torch.float64)
        mine[self.rank] = number
        numbers = self.add_up(mine.to(_collective_device())).tolist() if self.size > 1 else [number]
        if len(set(numbers)) > 1:
            raise TrainingError(
                f"{what}: the {self.size} processes have {[int(n) for n in numbers]}; they must see the same folder"
            )

    @contextmanager
    def meeting(self) -> Iterator[None]:
        """Around all that waits for the other processes.

        Raises:
            LostProcessError: one of them is gone.
        """
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not _is_lost_contact(error):
                raise
            raise LostProcessError(
                f"process {self.rank} of {self.size}: lost another process, which was killed or cannot be reached; "
                "the same command goes on from the last checkpoint"
            ) from error


ALONE = Group()
_LOST = ("connection closed", "connection reset", "connection refused", "broken pipe", "timed out", "ncclremoteerror")
"""What gloo and nccl say, among else, when the other side is gone."""


@contextmanager
def joined(device: torch.device) -> Iterator[Group]:
    """The group that this process was started in by `torchrun`; alone if it was started by hand.

    Raises:
        EdpipeError: the other processes cannot be found.
    """
    if num_started() == 1:
        yield ALONE
        return
    try:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise EdpipeError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']}: the processes cannot find each other "
            f"({str(error).splitlines()[0]}); start them with torchrun"
        ) from error
    try:
        yield Group(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the batches of all processes, for CPUs; `nn.SyncBatchNorm` works on GPUs only.

    Takes over the parameters and buffers of a layer, under the same names.
    """

    def __init__(self, layer: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        super().__init__(layer.num_features, layer.eps, layer.momentum)
        self._parameters, self._buffers = layer._parameters, layer._buffers
        self.train(layer.training)

    def forward(self, features: Float[Tensor, "sample channel ..."]) -> Float[Tensor, "sample channel ..."]:
        """Normalised features, in the features' own precision; while training by mean and variance of all processes."""
        if not self.training:
            return super().forward(features)
        whole = features.float()
        mean, variance = self._statistics(whole)
        shape = (1, -1) + (1,) * (features.ndim - 2)
        scale = (variance + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        normalised = (whole - mean.reshape(shape)) * scale.reshape(shape)
        if self.bias is not None:
            normalised = normalised + self.bias.reshape(shape)
        return normalised.to(features.dtype)

    def _statistics(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel; the running ones follow them."""
        axes = [0, *range(2, features.ndim)]
        own_count = features.new_tensor([features.numel() // features.shape[1]])
        *_, count = total = _SumOfAll.apply(torch.cat([features.sum(axes), own_count]))
        mean = total[:-1] / count
        shape = (1, -1) + (1,) * (features.ndim - 2)
        variance = _SumOfAll.apply((features - mean.reshape(shape)).square().sum(axes)) / count
        self._follow(mean.detach(), (variance * (count / (count - 1))).detach())
        return mean, variance

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


class _SumOfAll(torch.autograd.Function):
    """The sum over processes, of values and of gradients."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _synchronise_batch_norms(network: nn.Module, device: torch.device) -> None:
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.modules.batchnorm._BatchNorm) and not isinstance(child, nn.SyncBatchNorm):
                setattr(parent, name, _synchronised(child, device))


def _synchronised(layer: nn.Module, device: torch.device) -> nn.Module:
    if device.type == "cuda":
        from timm.layers.norm_act import convert_sync_batchnorm  # knows timm's layers too, and takes a second to import

        return convert_sync_batchnorm(layer)
    if type(layer) not in (nn.BatchNorm1d, nn.BatchNorm2d):
        raise TrainingError(
            f"{type(layer).__name__}: several processes on CPUs train networks with BatchNorm1d and BatchNorm2d only; "
            "unset EDPIPE_PROCESSES, or use GPUs"
        )
    return SynchronisedBatchNorm(layer)  # type: ignore[arg-type]


def _collective_device() -> torch.device:
    """Where tensors must be that processes exchange."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def _is_lost_contact(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, dist.DistNetworkError) or any(words in text for words in _LOST)
