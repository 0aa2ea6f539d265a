"""The student of one stage: the body blocks it has so far, and a reference for those it does not have yet."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edpipe.models.probe import count_outputs
from edpipe.models.splitting.chain import Chain, join, map_shapes
from edpipe.models.splitting.split import split
from edpipe.models.students.reference_blocks import reference_of

REFERENCE_PREFIX = "reference."
AUXILIARY_PREFIX = "aid."
"""Of the weights of earlier references in a stage's file: `aid.<level>.*`."""


class Student(nn.Module):
    """The student at school level `level` of `num_levels`: body blocks 1..level, then the reference.

    At the last level the reference is the network's own head: body and reference together are exactly the network.
    """

    def __init__(
        self,
        network: nn.Module,
        level: int,
        num_levels: int,
        num_outputs: int,
        reference: str,
        image_size: int,
        channels: int,
        seed: int,
    ) -> None:
        """Takes over the network's modules; those beyond the level are left out.

        Raises:
            NetworkError: the network cannot be split into that many blocks or cannot take such images.
            ValueError: level is not in 1..num_levels; the last level's network has another number of outputs.
        """
        super().__init__()
        if not 1 <= level <= num_levels:
            raise ValueError(f"level must be in 1..{num_levels}, got {level}")
        given = count_outputs(network, channels, image_size)
        if level == num_levels and given != num_outputs:
            raise ValueError(f"the last level has the network's own {given} outputs, but {num_outputs} were asked for")
        blocks, _ = split(network, num_levels)
        self.blocks = tuple(blocks[:level])
        """The body blocks; in a tuple, for their modules to belong to the body."""
        self.block_weights = tuple(tuple(block.weights()) for block in blocks[:level])
        """Names of the weights of each body block."""
        self._frozen: tuple[str, ...] = ()
        self.body: nn.Module = network
        self.reference: nn.Module | None = None
        if level < num_levels:
            shapes = map_shapes(network, blocks, channels, image_size)
            self.body = join(blocks[:level])
            self.reference = reference_of(reference, level, shapes, num_outputs, seed)

    def forward(self, images: Float[Tensor, "sample channel height width"]) -> Float[Tensor, "sample class"]:
        """Logits of a batch."""
        features = self.body(images)
        return features if self.reference is None else self.reference(features)

    def freeze(self, num_blocks: int) -> None:
        """From now on the first body blocks do not learn: no gradients, and statistics and dropout as in evaluation."""
        frozen = {id(unit.module) for block in self.blocks[:num_blocks] for unit in block.units}
        # By name: several processes exchange batch normalisations for joint ones.
        self._frozen = tuple(name for name, module in self.named_modules() if id(module) in frozen)
        for name in self._frozen:
            self.get_submodule(name).requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Student":
        """As of every module; frozen blocks stay in evaluation mode."""
        super().train(mode)
        for name in self._frozen:
            self.get_submodule(name).eval()
        return self

    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers: the body's under the network's own names, the reference's as `reference.*`.

        The tensors themselves, not copies. At the last level this is the network's state_dict.
        """
        if self.reference is None or not isinstance(self.body, Chain):
            return dict(self.body.state_dict())
        reference = {REFERENCE_PREFIX + name: value for name, value in self.reference.state_dict().items()}
        return {**self.body.weights(), **reference}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Takes over weights bit for bit.

        Raises:
            ValueError: a weight is missing, unexpected, or of another shape or dtype; then nothing has changed.
        """
        _copy_weights(weights, self.weights(), "student")


def student_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of a stage's file that are the student's own."""
    return {name: value for name, value in weights.items() if not name.startswith(AUXILIARY_PREFIX)}


def grow(previous_weights: Mapping[str, Tensor], student: Student, previous_blocks: int) -> None:
    """Copies the body of the stage before, bit for bit, into the student of the next stage.

    New blocks, and the reference behind them, keep their freshly drawn weights. A student with as many blocks as before
    takes over the reference as well, or the whole network's head, unless it has other outputs now.

    Args:
        previous_weights: of the student after the stage before.
        student: of the next stage.
        previous_blocks: body blocks of the stage before.

    Raises:
        ValueError: the weights are not those of a student of so many blocks; then nothing has changed.
    """
    own = student.weights()
    if previous_blocks == len(student.block_weights) and _has_same_reference(previous_weights, own):
        _copy_weights(previous_weights, own, "student of as many blocks")
        return
    body = {name: value for name, value in previous_weights.items() if not name.startswith(REFERENCE_PREFIX)}
    inherited = {name: own[name] for block in student.block_weights[:previous_blocks] for name in block}
    _copy_weights(body, inherited, "inherited body")


def _has_same_reference(previous_weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    """Whether both have a reference of as many outputs, or none but the network's own head."""
    shapes = [
        {name: value.shape for name, value in weights.items() if name.startswith(REFERENCE_PREFIX)}
        for weights in (previous_weights, own)
    ]
    return shapes[0] == shapes[1]


def _copy_weights(source: Mapping[str, Tensor], target: Mapping[str, Tensor], what: str) -> None:
    missing, unexpected = sorted(target.keys() - source.keys()), sorted(source.keys() - target.keys())
    if missing or unexpected:
        raise ValueError(
            f"weights do not fit the {what}: {len(missing)} missing (first {missing[:1]}), "
            f"{len(unexpected)} unexpected (first {unexpected[:1]})"
        )
    for name, value in target.items():
        if (source[name].shape, source[name].dtype) != (value.shape, value.dtype):
            raise ValueError(
                f"weights do not fit the {what}: {name} is {source[name].dtype} {tuple(source[name].shape)}, "
                f"expected {value.dtype} {tuple(value.shape)}"
            )
    with torch.no_grad():
        for name, value in target.items():
            value.copy_(source[name])
