"""A student with what only its training needs: taps on its features, and reference blocks of earlier levels."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edpipe.errors import NetworkError
from edpipe.models.probe import model_name
from edpipe.models.splitting.attention_maps import attention_ends, attention_map
from edpipe.models.splitting.chain import Tap, map_shapes
from edpipe.models.splitting.functional_ops import Functions
from edpipe.models.splitting.split import feature_stages, split
from edpipe.models.students.outputs import StudentOutputs
from edpipe.models.students.reference_blocks import reference_of
from edpipe.models.students.setting import SideModule
from edpipe.models.students.student import AUXILIARY_PREFIX, REFERENCE_PREFIX, Student


class AuxiliaryStudent(nn.Module):
    """A student whose forward pass gives `StudentOutputs`.

    Args:
        student: shares its modules with this.
        side: reads features of the student on its way; None: nothing does.
        earlier: of each earlier level, where the features are that its reference reads, and the reference.
        num_kept: so many of them go on to the next stage, from the first on; None: all.
    """

    def __init__(
        self,
        student: Student,
        side: SideModule | None = None,
        earlier: Sequence[tuple[Tap, nn.Module]] = (),
        num_kept: int | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.earlier = nn.ModuleList(reference for _, reference in earlier)
        self._num_kept = num_kept
        self.side = side
        self._seen: dict[int, Tensor] = {}
        self._num_taps = 0
        self._side_keys = [] if side is None else [self._tap(tap) for tap in side.taps]
        self._earlier_keys = [self._tap(end) for end, _ in earlier]

    def forward(self, images: Float[Tensor, "sample channel height width"]) -> StudentOutputs:
        """All that is said of a batch."""
        logits = self.student(images)
        side = None if self.side is None else self.side(*(self._seen[key] for key in self._side_keys))
        pairs = zip(self.earlier, self._earlier_keys, strict=True)
        earlier = tuple(reference(self._seen[key]) for reference, key in pairs)
        self._seen.clear()  # features would outlive their batch
        return StudentOutputs(logits, side, earlier)

    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers of the student, and of kept references as `aid.<level>.*`; not copies."""
        kept = {
            f"{AUXILIARY_PREFIX}{level}.{name}": value
            for level, reference in enumerate(self.earlier[: self._num_kept], start=1)
            for name, value in reference.state_dict().items()
        }
        return self.student.weights() | kept

    def _tap(self, end: Tap) -> int:
        """Keeps the features of the latest forward pass under a number, which is returned."""
        number = self._num_taps
        self._num_taps += 1
        # A bound method: of a copy, as the running mean of the weights is one, it belongs to the copy.
        end.module.register_forward_hook(partial(self._keep, number, end.functions))
        return number

    def _keep(self, number: int, functions: Functions, module: nn.Module, _: object, output: Tensor) -> None:
        self._seen[number] = Tap(module, functions).read(output)


class AttentionMaps(SideModule):
    """A student's attention maps, of those of the whole network that it can give, in order.

    Raises:
        NetworkError: the network is no chain of its modules, or the student has no map.
    """

    def __init__(self, network: nn.Module, student: nn.Module) -> None:
        own = set(student.modules())
        taps = [end for end in attention_ends(network, feature_stages(network)) if end.module in own]
        if not taps:
            raise NetworkError(
                f"model {model_name(network)!r}: its part that is trained has no attention map; use another loss "
                "there, or another model"
            )
        super().__init__(taps)

    def forward(self, *features: Float[Tensor, "sample _ _ _"]) -> tuple[Float[Tensor, "sample _ _"], ...]:
        """One map for each."""
        return tuple(attention_map(one) for one in features)


def earlier_references(
    network: nn.Module, num_blocks: int, kind: str, outputs: Mapping[int, int], sizes: tuple[int, int], seed: int
) -> list[tuple[Tap, nn.Module]]:
    """Of each earlier level, where its reference reads the features, and its reference.

    Args:
        network: whole.
        num_blocks: into so many blocks it is split.
        kind: of reference.
        outputs: of each reference, by the number of blocks before it; ascending.
        sizes: channels and side of the images.
        seed: of weights that are overwritten by those of the stage before.
    """
    blocks, _ = split(network, num_blocks)
    shapes = map_shapes(network, blocks, *sizes)
    return [(blocks[number - 1].tap, reference_of(kind, number, shapes, outputs[number], seed)) for number in outputs]


def inherit_references(
    previous_weights: Mapping[str, Tensor], auxiliary: AuxiliaryStudent, is_new_last: bool = True
) -> None:
    """Copies the earlier references out of the stage before: its own, and those that it had kept.

    Args:
        previous_weights: of the stage before.
        auxiliary: whose earlier references get them.
        is_new_last: whether the last of them was the stage's own; else the student has as many blocks as it had.

    Raises:
        RuntimeError: they are not those of the stage before.
    """
    last = len(auxiliary.earlier) if is_new_last else 0
    for level, reference in enumerate(auxiliary.earlier, start=1):
        prefix = REFERENCE_PREFIX if level == last else f"{AUXILIARY_PREFIX}{level}."
        own = {name.removeprefix(prefix): v for name, v in previous_weights.items() if name.startswith(prefix)}
        with torch.no_grad():
            reference.load_state_dict(own)
