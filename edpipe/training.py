"""The one training loop: every teacher and every stage of every method goes through it. It writes nothing."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edpipe.errors import TrainingError
from edpipe.params.recipe import RecipeKnobs
from edpipe.schedule import batch_positions, num_iterations, rate_factor


@dataclass(frozen=True)
class Budget:
    """How long and how fast: images to see, the peak learning rate, and the part of the schedule to run through."""

    num_images: int
    learning_rate: float
    window: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Progress:
    """Where training stands after an iteration."""

    iteration: int
    num_iterations: int
    images: int
    loss: float


BatchLoss = Callable[[int, int], Float[Tensor, ""]]
"""Mean loss of the samples at positions start … stop-1 of the sample stream."""


def fit(network: nn.Module, recipe: RecipeKnobs, budget: Budget, batch_loss: BatchLoss) -> Iterator[Progress]:
    """Trains the network in place; yields after every iteration.

    Raises:
        TrainingError: the loss is no longer a finite number; the weights are of no use then.
    """
    optimizer = make_optimizer(network, recipe)
    total = num_iterations(budget.num_images, recipe.batch_size)
    network.train()
    for iteration in range(total):
        start, stop = batch_positions(iteration, recipe.batch_size, budget.num_images)
        _set_rate(optimizer, budget, recipe, iteration / total)
        loss = batch_loss(start, stop)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"loss became {value} at iteration {iteration + 1} of {total} (learning rate {_rate(optimizer):.3g}); "
                "lower learning_rate, raise the recipe's warmup, or use precision: float32"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        yield Progress(iteration + 1, total, stop, value)


def make_optimizer(network: nn.Module, recipe: RecipeKnobs) -> torch.optim.Optimizer:
    """The recipe's optimizer over all of the network's parameters."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        parameters,
        lr=0.0,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,
        weight_decay=recipe.weight_decay,
    )


def _set_rate(optimizer: torch.optim.Optimizer, budget: Budget, recipe: RecipeKnobs, fraction: float) -> None:
    first, last = budget.window
    factor = rate_factor(recipe, first + fraction * (last - first))
    for group in optimizer.param_groups:
        group["lr"] = budget.learning_rate * factor


def _rate(optimizer: torch.optim.Optimizer) -> float:
    return optimizer.param_groups[0]["lr"]


def forward(
    network: nn.Module, images: Float[Tensor, "sample channel height width"], recipe: RecipeKnobs
) -> Float[Tensor, "sample class"]:
    """Logits in float32, computed in the recipe's precision."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        logits = network(images)
    return logits.float()
