"""The one training loop: every teacher and every stage of every method goes through it. It writes nothing."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from edpipe.errors import TrainingError
from edpipe.params.recipe import RecipeKnobs
from edpipe.runtime.device import callable_network
from edpipe.runtime.distributed import ALONE, Group
from edpipe.runtime.prefetch import in_order
from edpipe.training.schedule import batch_positions, num_iterations, rate_factor
from edpipe.views.philox import WORD_BITS, Purpose, random_words

EXPLODED = 100
"""A loss so many times the first one, or 1 if that is larger, is past mending."""
FIRST_LOSSES = 8
"""Iterations whose losses are kept, so that the beginning of a training can be compared with it later."""
GPU_REPORT_EVERY = 20
"""Iterations between looks at the loss on a GPU: each makes the host wait for the device."""
OPTIMIZER, EMA, NETWORK = "optimizer.", "ema.", "network."
"""Prefixes of the tensors of a training's state."""
_NOISE_BLOCK = 256
_REMEDY = "lower learning_rate, raise the recipe's warmup, set its clip_norm, or use precision: float32"


@dataclass(frozen=True)
class Budget:
    """How long and how fast: images to see, the peak learning rate, and the part of the schedule to run through."""

    num_images: int
    learning_rate: float
    window: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Progress:
    """Where training stands."""

    iteration: int
    """Iterations done."""
    num_iterations: int
    images: int
    loss: float
    """Of the latest batch, nats."""
    learning_rate: float
    """Of the latest iteration."""


@runtime_checkable
class Task(Protocol):
    """What is learnt."""

    @property
    def num_workers(self) -> int:
        """Threads that make batches ahead; 0 where a batch is made faster than it is handed over."""
        ...

    def batch(self, start: int, stop: int) -> Any:
        """All that the loss of the samples at positions start … stop-1 of the sample stream needs but the network.

        May be called in another thread, and for several batches at once.
        """
        ...

    def loss(self, network: nn.Module, batch: Any) -> Float[Tensor, " sample"]:
        """The loss of each sample of a batch, nats."""
        ...


@dataclass
class _LossHistory:
    """What is known of the losses so far: the first ones, and enough to go on and tell the mean of the last tenth."""

    first_losses: list[float] = field(default_factory=list)
    tail_sum: float = 0.0
    tail_count: int = 0

    def add(self, iteration: int, total: int, loss: float) -> None:
        if iteration < FIRST_LOSSES:
            self.first_losses.append(loss)
        if iteration >= total - max(1, total // 10):
            self.tail_sum, self.tail_count = self.tail_sum + loss, self.tail_count + 1


class Training:
    """A network on its way through one budget; its state can be taken and put back at any iteration, bit for bit.

    Args:
        network: is trained in place, on the device where it lies.
        recipe: how.
        budget: how long and how fast.
        seed: of what the network itself draws, such as dropout; of (seed, iteration, process) alone.
        group: the processes that train it together.
        evaluates: the network stays in evaluation mode, for training that must leave batch statistics alone.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: RecipeKnobs,
        budget: Budget,
        seed: int = 0,
        group: Group = ALONE,
        evaluates: bool = False,
    ) -> None:
        self._evaluates = evaluates
        self.network, self.recipe, self.budget, self.group = network, recipe, budget, group
        self.num_iterations = num_iterations(budget.num_images, recipe.batch_size)
        self.iteration = 0
        self._seed = seed
        self._loss_history = _LossHistory()
        self._network_in_use = callable_network(group.wrap(network))
        self._optimizer = make_optimizer(network, recipe)
        self._ema = _make_ema(network, recipe)
        self._device = next(network.parameters()).device
        self._report_every = 1 if self._device.type == "cpu" else GPU_REPORT_EVERY
        self._unread: list[Tensor] = []

    @property
    def mean_tail_loss(self) -> float:
        """Mean loss over the last tenth of the iterations, nats."""
        return self._loss_history.tail_sum / self._loss_history.tail_count

    @property
    def first_losses(self) -> tuple[float, ...]:
        """Losses of the first `FIRST_LOSSES` iterations, as far as there are so many, nats; as float32 gave them."""
        return tuple(self._loss_history.first_losses)

    @property
    def network_to_keep(self) -> nn.Module:
        """What `finish` would make of the network now: the running mean of its weights, if the recipe asks for one."""
        return self.network if self._ema is None else self._ema.module

    def run(self, task: Task) -> Iterator[Progress]:
        """Trains from the iteration where it stands to the end of the budget; yields whenever the loss was looked at.

        At each yield, all losses so far are known to be sound, and `state` may be taken.

        Raises:
            TrainingError: the loss is no longer a finite number, or a hundred times what it was; or another process is
                gone.
        """
        self.network.train(not self._evaluates)
        todo = range(self.iteration, self.num_iterations)
        for batch in in_order(lambda iteration: self._batch(task, iteration), todo, task.num_workers):
            with self.group.meeting():
                self._step(task, batch)
                self.iteration += 1
                if self.iteration % self._report_every and self.iteration < self.num_iterations:
                    continue
                loss = self._read_losses()
            latest = self.iteration - 1
            yield Progress(self.iteration, self.num_iterations, self._positions(latest)[1], loss, self._rate(latest))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that `restore` needs: tensors by name, and numbers that JSON can hold.

        The tensors are the ones in use, not copies.

        Raises:
            TrainingError: a weight is no longer a finite number.
        """
        self._check_weights()
        tensors = {NETWORK + name: value for name, value in self.network.state_dict().items()}
        if self._ema is not None:
            tensors |= {EMA + name: value for name, value in self._ema.module.state_dict().items()}
        for number, values in self._optimizer.state_dict()["state"].items():
            own = {f"{OPTIMIZER}{number}.{name}": value for name, value in values.items()}
            tensors |= {name: value for name, value in own.items() if isinstance(value, Tensor)}
        return tensors, {"iteration": self.iteration, **vars(self._loss_history)}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Puts back what `state` gave, for the same network, recipe and budget."""
        facts = dict(facts)
        self.iteration = facts.pop("iteration")
        self._loss_history = _LossHistory(**facts)
        self.network.load_state_dict(_below(NETWORK, tensors))
        if self._ema is not None:
            self._ema.module.load_state_dict(_below(EMA, tensors))
        self._restore_optimizer(_below(OPTIMIZER, tensors))

    def finish(self) -> None:
        """The network gets the running mean of its weights, if the recipe asks for one.

        Raises:
            TrainingError: a weight is no longer a finite number.
        """
        self._check_weights()
        if self._ema is not None:
            self.network.load_state_dict(self._ema.module.state_dict())

    def _positions(self, iteration: int) -> tuple[int, int]:
        return batch_positions(iteration, self.recipe.batch_size, self.budget.num_images)

    def _batch(self, task: Task, iteration: int) -> tuple[int, Any]:
        """How many samples all processes see in this iteration, and the batch of this one."""
        start, stop = self._positions(iteration)
        return stop - start, task.batch(*self.group.part(start, stop))

    def _step(self, task: Task, sized_batch: tuple[int, Any]) -> None:
        num_samples, batch = sized_batch
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate(self.iteration)
        _seed_noise(self._device, self._seed, self.iteration, self.group.rank)
        share = task.loss(self._network_in_use, batch).sum() / num_samples
        self._optimizer.zero_grad(set_to_none=True)
        # Gradients are averaged over processes, losses are to be added up.
        (share * self.group.size).backward()
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
        self._optimizer.step()
        if self._ema is not None:
            self._ema.update(self.network, self.iteration + 1)
        self._unread.append(share.detach())

    def _rate(self, iteration: int) -> float:
        first, last = self.budget.window
        factor = rate_factor(self.recipe, first + iteration / self.num_iterations * (last - first))
        return self.budget.learning_rate * factor

    def _read_losses(self) -> float:
        """The latest loss, after all since the last look were found sound."""
        losses = self.group.add_up(torch.stack(self._unread)).tolist()
        first = self.iteration - len(losses)
        self._unread.clear()
        for iteration, loss in enumerate(losses, start=first):
            self._loss_history.add(iteration, self.num_iterations, loss)
            self._check(iteration, loss)
        return losses[-1]

    def _check(self, iteration: int, loss: float) -> None:
        first_loss = self._loss_history.first_losses[0]
        if not math.isfinite(loss) or loss > EXPLODED * max(1.0, first_loss):
            raise TrainingError(
                f"loss became {loss:.4g} at iteration {iteration + 1} of {self.num_iterations} (learning rate "
                f"{self._rate(iteration):.3g}, first loss {first_loss:.4g}); {_REMEDY}"
            )

    def _check_weights(self) -> None:
        for name, weight in self.network.state_dict().items():
            if weight.is_floating_point() and not weight.isfinite().all():
                place = f"iteration {self.iteration} of {self.num_iterations}"
                raise TrainingError(f"weight {name} is no longer finite at {place}; {_REMEDY}")

    def _restore_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            number, _, key = name.partition(".")
            like = parameters[int(number)]
            # In the memory layout of the weights: fused optimizers walk through both side by side.
            own = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            state.setdefault(int(number), {})[key] = own
        self._optimizer.load_state_dict(self._optimizer.state_dict() | {"state": state})


def make_optimizer(network: nn.Module, recipe: RecipeKnobs) -> torch.optim.Optimizer:
    """The recipe's optimizer over all of the network's parameters that learn."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    is_decayed = [recipe.decay == "all" or p.ndim > 1 for p in parameters]
    groups = [
        {"params": [p for p, decayed in zip(parameters, is_decayed, strict=True) if decayed == wanted], "lr": 0.0}
        for wanted in (True, False)
    ]
    groups[0]["weight_decay"], groups[1]["weight_decay"] = recipe.weight_decay, 0.0
    groups = [group for group in groups if group["params"]]
    # One pass over each weight instead of several: 6 times as fast on a CPU.
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, fused=True)
    nesterov = recipe.nesterov and recipe.momentum > 0
    return torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=nesterov, fused=True)


def _make_ema(network: nn.Module, recipe: RecipeKnobs) -> Any:
    """timm's running mean of the weights, or None. It decays by 1 - (1 + iteration)^-2/3 as long as that is less."""
    if recipe.ema_decay is None:
        return None
    from timm.utils.model_ema import ModelEmaV3  # takes a second to import

    return ModelEmaV3(network, decay=recipe.ema_decay, use_warmup=True)


@lru_cache(maxsize=2)
def _noise_seeds(seed: int, block: int, rank: int) -> list[int]:
    """Of the iterations in a block of `_NOISE_BLOCK`; one at a time they would cost a share of a small step."""
    iterations = np.arange(block * _NOISE_BLOCK, (block + 1) * _NOISE_BLOCK)
    words = random_words(seed, Purpose.TRAINING_NOISE, iterations, rank).astype(np.uint64)
    return ((words[:, 0] << np.uint64(WORD_BITS)) | words[:, 1]).tolist()


def _seed_noise(device: torch.device, seed: int, iteration: int, rank: int) -> None:
    """Seeds the generator that dropout on this device uses.

    Not torch.manual_seed, which takes 0.2 ms to note its caller for devices that are not in use.
    """
    block, place = divmod(iteration, _NOISE_BLOCK)
    on_gpu = device.type == "cuda"
    generator = torch.cuda.default_generators[device.index or 0] if on_gpu else torch.default_generator
    generator.manual_seed(_noise_seeds(seed, block, rank)[place])


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
