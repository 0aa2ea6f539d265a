"""How fast networks are on this machine: a second or so each, measured once and remembered in this folder.

The memory is this folder's own, and safe to delete.
"""

import json
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from edpipe.errors import NetworkError
from edpipe.params.recipe import RecipeKnobs
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.jobs.resources import network_threads
from edpipe.runtime.progress import announce
from edpipe.runtime.threads import num_threads
from edpipe.storage.atomic import write_text_atomically
from edpipe.storage.digests import digest_json
from edpipe.storage.records import library_versions, to_json

MEASURED_S = 0.4
"""How long each of training and forward passes is repeated."""
LONGEST_STEP_S = 0.15
"""A batch is enlarged, up to the recipe's, until one iteration takes so long."""
SMALLEST_BATCH = 2
"""Batch normalisation needs two images."""
MOST_KEPT = 500


@dataclass(frozen=True)
class NetworkUse:
    """A network, and the images that it gets."""

    model: str
    num_classes: int
    channels: int
    image_size: int
    """Side of the square, pixels."""
    batch_size: int
    precision: str
    """Of the recipe."""

    @property
    def threads(self) -> int:
        """As many as its jobs may use, on this machine."""
        return min(network_threads(self.image_size), num_threads())


@dataclass(frozen=True)
class NetworkSpeed:
    """What was measured of a network in one use."""

    training: float
    """Images a second that it is fitted to."""
    forward: float
    """Images a second that go through it in evaluation mode."""
    parameters: int
    device: str
    feature_stages: tuple[tuple[int, int, int], ...]
    """Channels, height and width of the maps of each; empty where the network cannot be cut into any."""


Measure = Callable[[NetworkUse], NetworkSpeed]


class NetworkSpeeds:
    """Speeds of networks on this machine, by use; None for a network that cannot take such images."""

    def __init__(self, measure: Measure | None = None) -> None:
        self._measure = measure or measured
        self._known = _read()
        self._refused: set[NetworkUse] = set()
        self.used: dict[NetworkUse, NetworkSpeed] = {}
        """Of all uses that were asked for, in order."""

    def of(self, use: NetworkUse) -> NetworkSpeed | None:
        """The speed, measured now if it was not before."""
        if use not in self.used and use not in self._refused:
            try:
                self.used[use] = self._looked_up(use)
            except NetworkError:  # `edpipe check` says why
                self._refused.add(use)
        return self.used.get(use)

    def remembered(self, use: NetworkUse) -> NetworkSpeed | None:
        """The speed, if it was measured before."""
        return self._known.get(_key(use))

    def _looked_up(self, use: NetworkUse) -> NetworkSpeed:
        key = _key(use)
        if key not in self._known:
            self._known[key] = self._measure(use)
            kept = list(self._known.items())[-MOST_KEPT:]
            write_text_atomically(paths.SPEEDS, to_json({each: asdict(speed) for each, speed in kept}))
        return self._known[key]


def _key(use: NetworkUse) -> str:
    """Digest of all that a speed hangs on."""
    import os

    where = [socket.gethostname(), os.environ.get("EDPIPE_DEVICE"), os.environ.get("CUDA_VISIBLE_DEVICES"), use.threads]
    return digest_json([asdict(use), where, library_versions()])


def _read() -> dict[str, NetworkSpeed]:
    """What was measured before; nothing where the memory is damaged."""
    try:
        found = json.loads(paths.SPEEDS.read_text(encoding="utf-8"))
        return {key: _speed(value) for key, value in found.items()}
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return {}


def _speed(value: dict[str, Any]) -> NetworkSpeed:
    stages = tuple((channels, height, width) for channels, height, width in value["feature_stages"])
    return NetworkSpeed(**{**value, "feature_stages": stages})


def measured(use: NetworkUse) -> NetworkSpeed:
    """Tries the network with random images.

    On a CPU with one thread, time of the processor is measured, so that other programs do not count.

    Raises:
        NetworkError: the model is unknown, or cannot take such images.
    """
    import torch

    from edpipe.models.macs import count_parameters
    from edpipe.models.probe import count_outputs
    from edpipe.models.zoo.build import build_network
    from edpipe.runtime.device import prepare_device
    from edpipe.runtime.threads import by_default

    announce(f"measuring {use.model} at {use.channels}×{use.image_size}×{use.image_size}")
    with by_default(use.threads):
        device = prepare_device()
    network = build_network(use.model, use.num_classes, use.channels, seed=0)
    count_outputs(network, use.channels, use.image_size)
    trial = _Trial(network.to(device), use, device, torch.optim.SGD(network.parameters(), 1e-6, momentum=0.9))
    stages = _feature_stages(network, use)
    training = trial.images_per_s(trial.fit)
    network.eval()
    with torch.inference_mode():
        forward = trial.images_per_s(trial.ask)
    return NetworkSpeed(training, forward, count_parameters(network), device.type, stages)


def _feature_stages(network: Any, use: NetworkUse) -> tuple[tuple[int, int, int], ...]:
    from edpipe.models.splitting.chain import map_shapes
    from edpipe.models.splitting.split import feature_stages

    try:
        shapes = map_shapes(network, feature_stages(network), use.channels, use.image_size)
    except NetworkError:  # nothing is stored of its stages then
        return ()
    return tuple((shape[1], shape[2], shape[3]) for shape in shapes)


class _Trial:
    """A network and random images of its size."""

    def __init__(self, network: Any, use: NetworkUse, device: Any, optimizer: Any) -> None:
        self._network, self._use, self._device, self._optimizer = network, use, device, optimizer
        self._recipe = RecipeKnobs.model_validate({"precision": use.precision})

    def fit(self, images: Any) -> None:
        """One iteration of training."""
        import torch
        import torch.nn.functional as F

        from edpipe.models.forward import forward

        labels = torch.zeros(len(images), dtype=torch.int64, device=self._device)
        self._optimizer.zero_grad()
        F.cross_entropy(forward(self._network, images, self._recipe), labels).backward()
        self._optimizer.step()

    def ask(self, images: Any) -> None:
        """One forward pass."""
        from edpipe.models.forward import forward

        forward(self._network, images, self._recipe)

    def images_per_s(self, step: Callable[[Any], None]) -> float:
        """How many images a second go through a step, in the largest batch that is quick to try."""
        images = self._images(min(SMALLEST_BATCH, self._use.batch_size))
        step(images)  # the first call prepares kernels
        while (taken_s := self._seconds(step, images)) < LONGEST_STEP_S and len(images) < self._use.batch_size:
            images = self._images(min(2 * len(images), self._use.batch_size))
            step(images)
        total_s, count = taken_s, 1
        while total_s < MEASURED_S:
            total_s, count = total_s + self._seconds(step, images), count + 1
        return count * len(images) / max(total_s, 1e-9)

    def _images(self, count: int) -> Any:
        import torch

        side = self._use.image_size
        return torch.rand(count, self._use.channels, side, side, device=self._device)

    def _seconds(self, step: Callable[[Any], None], images: Any) -> float:
        clock = time.process_time if self._device.type == "cpu" and self._use.threads == 1 else time.perf_counter
        self._wait()
        started_s = clock()
        step(images)
        self._wait()
        return clock() - started_s

    def _wait(self) -> None:
        import torch

        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
