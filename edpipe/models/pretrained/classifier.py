"""The last layer of a classifier: what it is, which rows of it are kept, and training it alone."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

CLASSIFIER_LAYERS = nn.Conv2d | nn.Linear


def classifier_of(network: nn.Module) -> tuple[str, nn.Module]:
    """Path and module of the layer that gives the logits: the last convolution or linear layer.

    Raises:
        ValueError: the network has neither.
    """
    layers = [(path, module) for path, module in network.named_modules() if isinstance(module, CLASSIFIER_LAYERS)]
    if not layers:
        raise ValueError(f"{type(network).__name__} has no convolution and no linear layer")
    return layers[-1]


def classifier_weights(network: nn.Module) -> tuple[str, ...]:
    """Names of that layer's weight and, where it has one, bias in the network's state_dict."""
    path, layer = classifier_of(network)
    return tuple(f"{path}.{name}" for name, _ in layer.named_parameters())


def with_rows_of_classifier(network: nn.Module, rows: Sequence[int]) -> Mapping[str, Tensor]:
    """The network's weights with these rows alone of its last layer, in this order.

    The logits of the other classes are gone, so a softmax is over the kept classes only; the kept logits are the same.
    """
    weights = network.state_dict()
    chosen = torch.tensor(rows)
    return weights | {name: weights[name][chosen] for name in classifier_weights(network)}


def freeze_all_but_classifier(network: nn.Module) -> None:
    """Lets only the last layer be trained: a linear probe, if the network also stays in evaluation mode."""
    _, classifier = classifier_of(network)
    network.requires_grad_(False)
    classifier.requires_grad_(True)
