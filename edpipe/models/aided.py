"""A student with what only its training needs: taps on its features, and reference blocks of earlier levels."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edpipe.models.attention import attention_map
from edpipe.models.reference import build_reference
from edpipe.models.split import count_feature_stages, map_shapes, split
from edpipe.models.student import REFERENCE_PREFIX, Student
from edpipe.params.recipe import RecipeKnobs
from edpipe.teskd_outputs import TeskdOutputs

AID_PREFIX = "aid."
"""Of the weights of earlier references in a stage's file: `aid.<level>.*`."""


class Answers(NamedTuple):
    """What a student gives for a batch of images."""

    logits: Float[Tensor, "sample class"]
    maps: tuple[Float[Tensor, "sample height width"], ...] = ()
    """Attention maps of its feature stages, in order."""
    earlier: tuple[Float[Tensor, "sample known"], ...] = ()
    """Logits of earlier references, in order."""


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
    return Answers(given.logits.float(), given.maps, tuple(logits.float() for logits in given.earlier))


class Aided(nn.Module):
    """A student whose forward pass gives `Answers`.

    Args:
        student: shares its modules with this.
        attention_ends: modules whose outputs the attention maps are of.
        kept: of each earlier level, the module whose output its reference reads, and the reference.
    """

    def __init__(
        self, student: Student, attention_ends: Sequence[nn.Module], kept: Sequence[tuple[nn.Module, nn.Module]]
    ) -> None:
        super().__init__()
        self.student = student
        self.earlier = nn.ModuleList(reference for _, reference in kept)
        self._seen: dict[int, Tensor] = {}
        self._attention_keys = [self._tap(module) for module in attention_ends]
        self._kept_keys = [self._tap(module) for module, _ in kept]

    def forward(self, images: Float[Tensor, "sample channel height width"]) -> Answers:
        """Answers to a batch."""
        logits = self.student(images)
        maps = tuple(attention_map(self._seen[key]) for key in self._attention_keys)
        pairs = zip(self.earlier, self._kept_keys, strict=True)
        earlier = tuple(reference(self._seen[key]) for reference, key in pairs)
        self._seen.clear()  # features would outlive their batch
        return Answers(logits, maps, earlier)

    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers of the student, and of earlier references as `aid.<level>.*`; not copies."""
        kept = {
            f"{AID_PREFIX}{level}.{name}": value
            for level, reference in enumerate(self.earlier, start=1)
            for name, value in reference.state_dict().items()
        }
        return self.student.weights() | kept

    def _tap(self, module: nn.Module) -> int:
        """Keeps the module's output of the latest forward pass under a key, which is returned."""
        key = id(module)

        def keep(_: nn.Module, __: object, output: Tensor) -> None:
            self._seen[key] = output

        module.register_forward_hook(keep)
        return key


def student_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of a stage's file that are the student's own."""
    return {name: value for name, value in weights.items() if not name.startswith(AID_PREFIX)}


def attention_ends(network: nn.Module, student: Student) -> list[nn.Module]:
    """The last module of each of the network's feature stages that the student has.

    Raises:
        NetworkError: the network is no chain of its modules.
    """
    own = set(student.modules())
    blocks, _ = split(network, count_feature_stages(network))
    return [block.units[-1].module for block in blocks if block.units[-1].module in own]


def kept_references(
    network: nn.Module, num_levels: int, kind: str, known: Sequence[int], sizes: tuple[int, int], seed: int
) -> list[tuple[nn.Module, nn.Module]]:
    """Of each earlier level, the module that its reference reads, and a reference of `known[level]` outputs.

    Args:
        network: whole.
        num_levels: into so many blocks it is split.
        kind: of reference.
        known: outputs of each earlier level's reference.
        sizes: channels and side of the images.
        seed: of weights that are overwritten by those of the stage before.
    """
    blocks, _ = split(network, num_levels)
    widths = [shape[1] for shape in map_shapes(network, blocks, *sizes)]
    return [
        (block.units[-1].module, build_reference(kind, width, widths[-1], outputs, seed))
        for block, width, outputs in zip(blocks, widths, known, strict=False)
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
