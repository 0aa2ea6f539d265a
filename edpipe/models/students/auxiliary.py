"""A student with what only its training needs: taps on its features, and reference blocks of earlier levels."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edpipe.models.splitting.attention_maps import attention_map
from edpipe.models.splitting.chain import Tap, map_shapes
from edpipe.models.splitting.split import count_feature_stages, split
from edpipe.models.students.hint import Hint
from edpipe.models.students.outputs import StudentOutputs
from edpipe.models.students.reference_blocks import reference_of
from edpipe.models.students.student import AUXILIARY_PREFIX, REFERENCE_PREFIX, Student


class AuxiliaryStudent(nn.Module):
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

    def forward(self, images: Float[Tensor, "sample channel height width"]) -> StudentOutputs:
        """Answers to a batch."""
        logits = self.student(images)
        maps = tuple(attention_map(self._seen[key]) for key in self._attention_keys)
        pairs = zip(self.earlier, self._kept_keys, strict=True)
        earlier = tuple(reference(self._seen[key]) for reference, key in pairs)
        hint = None if self.hint is None or self._hint_key is None else self.hint(self._seen[self._hint_key])
        self._seen.clear()  # features would outlive their batch
        return StudentOutputs(logits, maps, earlier, hint)

    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers of the student, and of earlier references as `aid.<level>.*`; not copies."""
        kept = {
            f"{AUXILIARY_PREFIX}{level}.{name}": value
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


def inherit_references(previous_weights: Mapping[str, Tensor], auxiliary: AuxiliaryStudent) -> None:
    """Copies the earlier references out of the stage before: its own, and those that it had kept.

    Raises:
        RuntimeError: they are not those of the stage before.
    """
    last = len(auxiliary.earlier)
    for level, reference in enumerate(auxiliary.earlier, start=1):
        prefix = REFERENCE_PREFIX if level == last else f"{AUXILIARY_PREFIX}{level}."
        own = {name.removeprefix(prefix): v for name, v in previous_weights.items() if name.startswith(prefix)}
        with torch.no_grad():
            reference.load_state_dict(own)
