"""What networks do by functions between their modules, as modules without weights; found by comparing tensors."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edpipe.models.zoo.layers import GlobalPool

Functions = tuple[nn.Module, ...]


class ChannelsFirst(nn.Module):
    """Maps whose channels come last, as most libraries have maps."""

    def forward(self, features: Float[Tensor, "s h w c"]) -> Float[Tensor, "s c h w"]:
        """The same numbers, channels second."""
        return features.permute(0, 3, 1, 2)


class ChannelsLast(nn.Module):
    """What `ChannelsFirst` undoes."""

    def forward(self, features: Float[Tensor, "s c h w"]) -> Float[Tensor, "s h w c"]:
        """The same numbers, channels last."""
        return features.permute(0, 2, 3, 1)


class Averaged(nn.Module):
    """Several heads that read the same features: the mean of what they say; their weights keep their names."""

    def __init__(self, heads: dict[str, nn.Module]) -> None:
        super().__init__()
        for name, head in heads.items():
            self.add_module(name, head)

    def forward(self, features: Float[Tensor, "s ..."]) -> Float[Tensor, "s class"]:
        """Logits."""
        return torch.stack([head(features) for head in self.children()]).mean(dim=0)


class Mean(nn.Module):
    """Mean over some axes, which are kept with one element each if asked."""

    def __init__(self, axes: tuple[int, ...], is_kept: bool = False) -> None:
        super().__init__()
        self.axes, self.is_kept = axes, is_kept

    def forward(self, features: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The means."""
        return features.mean(dim=self.axes, keepdim=self.is_kept)


class Tokens(nn.Module):
    """Pixels one after another, row by row, channels last."""

    def forward(self, features: Float[Tensor, "s c h w"]) -> Float[Tensor, "s token c"]:
        """The same numbers in another order."""
        return features.flatten(2).transpose(1, 2)


ACTIVATIONS: tuple[type[nn.Module], ...] = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish)
SHAPINGS: dict[int, tuple[Functions, ...]] = {
    4: (
        (),
        (GlobalPool(),),
        (nn.Flatten(),),
        (Mean((2, 3), is_kept=True),),
        (ChannelsLast(),),
        (ChannelsFirst(),),
        (Tokens(),),
        (Mean((1, 2)),),
        (nn.MaxPool2d(2),),
        (nn.MaxPool2d(3, 2),),
        (nn.MaxPool2d(3, 2, 1),),
    ),
    3: ((), (Mean((1,)),)),
}
"""By the number of axes of what a module gives; no function chooses among samples or depends on the batch."""


def functions_between(made: Tensor, given: Tensor) -> Functions | None:
    """What makes of one module's output the next one's input: the first that fits, or None."""
    for functions in _candidates(made, given.shape):
        if are_equal(run_functions(functions, made), given):
            return functions
    return None


def are_equal(found: Tensor, expected: Tensor) -> bool:
    """Equal but for the order in which a kernel adds."""
    if found.shape != expected.shape:
        return False
    return torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def run_functions(functions: Functions, features: Tensor) -> Tensor:
    """What the modules, one after the other, make of the features."""
    for module in functions:
        features = module(features)
    return features


def _candidates(made: Tensor, shape: torch.Size) -> Iterator[Functions]:
    """Every function that gives this shape, the simplest first."""
    fitting = [shaping for shaping in SHAPINGS.get(made.ndim, ((),)) if _gives(shaping, made, shape)]
    yield from fitting
    for activation in ACTIVATIONS:
        for shaping in fitting:
            yield (activation(), *shaping)


def _gives(shaping: Functions, made: Tensor, shape: torch.Size) -> bool:
    try:
        return run_functions(shaping, made).shape == shape
    except RuntimeError:  # a pooling window larger than the map
        return False
