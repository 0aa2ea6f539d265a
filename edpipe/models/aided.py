"""A student with what only its training needs: taps on its features, and reference blocks of earlier levels."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edpipe.distill_losses import HintRegressor
from edpipe.errors import NetworkError
from edpipe.models.attention import attention_map
from edpipe.models.reference import reference_of
from edpipe.models.split import Tap, count_feature_stages, map_shapes, split, split_into_stages
from edpipe.models.student import AID_PREFIX, REFERENCE_PREFIX, Student
from edpipe.models.taps import pooled
from edpipe.models.zoo import model_name
from edpipe.params.recipe import RecipeKnobs
from edpipe.teskd_outputs import TeskdOutputs


class Answers(NamedTuple):
    """What a student gives for a batch of images."""

    logits: Float[Tensor, "sample class"]
    maps: tuple[Float[Tensor, "sample _ _"], ...] = ()
    """Attention maps of its feature stages, in order."""
    earlier: tuple[Float[Tensor, "sample _"], ...] = ()
    """Logits of earlier references, in order."""
    hint: Float[Tensor, "sample channel height width"] | None = None
    """Features of one stage, made as small as the teacher's hint and brought to its channels."""


def ask(
    network: nn.Module, images: Float[Tensor, "sample channel height width"], recipe: RecipeKnobs
) -> Answers | TeskdOutputs:
    """What a student says, aided or not, computed in the recipe's precision; logits in float32 but for TESKD's."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        given = network(images)
    if isinstance(given, TeskdOutputs):
        return given
    if not isinstance(given, Answers):
        return Answers(given.float())
    hint = None if given.hint is None else given.hint.float()
    return Answers(given.logits.float(), given.maps, tuple(logits.float() for logits in given.earlier), hint)


class Hint(nn.Module):
    """A student's features of one stage, as small as the teacher's hint and in its channels (Romero et al. 2015).

    The regressor is trained along with the student, and never kept.
    """

    def __init__(self, end: Tap, side: int, regressor: HintRegressor) -> None:
        super().__init__()
        self.end = end  # a tuple, for its module to belong to the student alone
        self._side, self.regressor = side, regressor

    def forward(self, features: Float[Tensor, "sample c h w"]) -> Float[Tensor, "sample channel height width"]:
        """What is held against the teacher's hint."""
        return self.regressor(pooled(features, self._side))


class Aided(nn.Module):
    """A student whose forward pass gives `Answers`.

    Args:
        student: shares its modules with this.
        attention_ends: where the features are read that the attention maps are of.
        kept: of each earlier level, where the features are that its reference reads, and the reference.
        hint: what makes a hint of which features.
    """

    def __init__(
        self,
        student: Student,
        attention_ends: Sequence[Tap] = (),
        kept: Sequence[tuple[Tap, nn.Module]] = (),
        hint: Hint | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.earlier = nn.ModuleList(reference for _, reference in kept)
        self.hint = hint
        self._seen: dict[int, Tensor] = {}
        self._attention_keys = [self._tap(end) for end in attention_ends]
        self._kept_keys = [self._tap(end) for end, _ in kept]
        self._hint_key = None if hint is None else self._tap(hint.end)

    def forward(self, images: Float[Tensor, "sample channel height width"]) -> Answers:
        """Answers to a batch."""
        logits = self.student(images)
        maps = tuple(attention_map(self._seen[key]) for key in self._attention_keys)
        pairs = zip(self.earlier, self._kept_keys, strict=True)
        earlier = tuple(reference(self._seen[key]) for reference, key in pairs)
        hint = None if self.hint is None or self._hint_key is None else self.hint(self._seen[self._hint_key])
        self._seen.clear()  # features would outlive their batch
        return Answers(logits, maps, earlier, hint)

    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers of the student, and of earlier references as `aid.<level>.*`; not copies."""
        kept = {
            f"{AID_PREFIX}{level}.{name}": value
            for level, reference in enumerate(self.earlier, start=1)
            for name, value in reference.state_dict().items()
        }
        return self.student.weights() | kept

    def _tap(self, end: Tap) -> int:
        """Keeps the features of the latest forward pass under a key, which is returned."""
        key = id(end.module)

        def keep(_: nn.Module, __: object, output: Tensor) -> None:
            self._seen[key] = end.read(output)

        end.module.register_forward_hook(keep)
        return key


def attention_ends(network: nn.Module, student: Student) -> list[Tap]:
    """Where the features are read of each of the network's feature stages that the student has.

    Raises:
        NetworkError: the network is no chain of its modules.
    """
    own = set(student.modules())
    blocks, _ = split(network, count_feature_stages(network))
    return [block.tap for block in blocks if block.tap.module in own]


def hint_of(
    network: nn.Module, level: int, side: int, shape: tuple[int, int, int], sizes: tuple[int, int], seed: int
) -> Hint:
    """What makes a hint of the stage of the student's network that the teacher's hint is of.

    Args:
        network: the whole student.
        level: of the stage, from 1.
        side: to which the teacher's map was averaged down.
        shape: channels, height and width of the teacher's hint.
        sizes: channels and side of the images.
        seed: of the regressor's weights.

    Raises:
        NetworkError: the network has no such stage, or its map is smaller than the teacher's hint.
    """
    blocks, _ = split_into_stages(network, "hints", "use another method or student")
    if level > len(blocks):
        raise NetworkError(
            f"model {model_name(network)!r}: has {len(blocks)} feature stages, the teacher's hint is of its stage "
            f"{level}; store the hint of a lower stage (storage.hint.level), or use another student"
        )
    _, channels, height, width = map_shapes(network, blocks, *sizes)[level - 1]
    own = min(height, side), min(width, side)
    if own != shape[1:]:
        raise NetworkError(
            f"model {model_name(network)!r}: stage {level} gives a hint of {own[0]}×{own[1]}, the teacher's is "
            f"{shape[1]}×{shape[2]}; use a smaller storage.hint.side, or another student"
        )
    return Hint(blocks[level - 1].tap, side, HintRegressor(channels, shape[0], seed))


def kept_references(
    network: nn.Module, num_levels: int, kind: str, known: Sequence[int], sizes: tuple[int, int], seed: int
) -> list[tuple[Tap, nn.Module]]:
    """Of each earlier level, where its reference reads the features, and a reference of `known[level]` outputs.

    Args:
        network: whole.
        num_levels: into so many blocks it is split.
        kind: of reference.
        known: outputs of each earlier level's reference.
        sizes: channels and side of the images.
        seed: of weights that are overwritten by those of the stage before.
    """
    blocks, _ = split(network, num_levels)
    shapes = map_shapes(network, blocks, *sizes)
    return [
        (block.tap, reference_of(kind, level, shapes, outputs, seed))
        for level, (block, outputs) in enumerate(zip(blocks, known, strict=False), start=1)
    ]


def inherit_references(previous_weights: Mapping[str, Tensor], aided: Aided) -> None:
    """Copies the earlier references out of the stage before: its own, and those that it had kept.

    Raises:
        RuntimeError: they are not those of the stage before.
    """
    last = len(aided.earlier)
    for level, reference in enumerate(aided.earlier, start=1):
        prefix = REFERENCE_PREFIX if level == last else f"{AID_PREFIX}{level}."
        own = {name.removeprefix(prefix): v for name, v in previous_weights.items() if name.startswith(prefix)}
        with torch.no_grad():
            reference.load_state_dict(own)
