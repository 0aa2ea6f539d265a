"""Networks by name: those for small images, and any classifier of timm or torchvision."""

from collections.abc import Callable

import torch
from torch import nn

from edpipe.errors import NetworkError
from edpipe.models.probe import MODEL_ATTRIBUTE, drawing, first_convolution
from edpipe.models.zoo.forms import OwnForm, own_form
from edpipe.models.zoo.mobilenet import CifarMobileNetV2
from edpipe.models.zoo.names import check_model_name, split_name
from edpipe.models.zoo.resnet import build_cifar_resnet, build_resnet
from edpipe.models.zoo.shufflenet import CifarShuffleNet, CifarShuffleNetV2
from edpipe.models.zoo.vgg import CifarVgg
from edpipe.models.zoo.wrn import WideResNet
from edpipe.params.plans.registered import REGISTRY


def build_network(model: str, num_classes: int, channels: int, seed: int) -> nn.Module:
    """A network with freshly drawn weights, on the CPU, in training mode; same seed, same bytes.

    Raises:
        NetworkError: the model is unknown, or its library cannot build it.
    """
    check_model_name(model)
    with drawing(seed):
        network = _build(model, num_classes, channels)
    setattr(network, MODEL_ATTRIBUTE, model)
    return network


def _build(model: str, num_classes: int, channels: int) -> nn.Module:
    form = own_form(model)
    if form is not None:
        return _build_own(form, num_classes, channels)
    if model in REGISTRY.networks:
        return _build_of_plugin(model, num_classes, channels)
    library, name = split_name(model)
    if library == "timm":
        import timm

        return timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=channels)
    from torchvision import models

    return with_channels(models.get_model(name, weights=None, num_classes=num_classes), channels)


def _build_of_plugin(model: str, num_classes: int, channels: int) -> nn.Module:
    """Raises:
    NetworkError: the plugin's function fails, or gives something else than a module.
    """
    try:
        network = REGISTRY.networks[model](num_classes, channels)
    except Exception as error:  # whatever the plugin's code raises
        what = " ".join(str(error).split())[:200]
        raise NetworkError(f"model {model!r}: its plugin failed: {type(error).__name__}: {what}") from error
    if not isinstance(network, nn.Module):
        raise NetworkError(f"model {model!r}: its plugin gave {type(network).__name__}; it must give a torch.nn.Module")
    return network


def _build_own(form: OwnForm, num_classes: int, channels: int) -> nn.Module:
    family, number, width_factor = form
    sizes = num_classes, channels
    builders: dict[str, Callable[[], nn.Module]] = {
        "resnet": lambda: build_resnet(number, width_factor, *sizes),
        "cifar_resnet": lambda: build_cifar_resnet(number, *sizes),
        "wrn": lambda: WideResNet(number, width_factor, *sizes),
        "vgg": lambda: CifarVgg(number, *sizes),
        "mobilenetv": lambda: CifarMobileNetV2(*sizes),
        "shufflenetv": lambda: CifarShuffleNet(*sizes) if number == 1 else CifarShuffleNetV2(*sizes),
    }
    return builders[family]()


def with_channels(network: nn.Module, channels: int) -> nn.Module:
    """The same network; where its first convolution takes another number of channels, it is drawn afresh for these."""
    _, stem = first_convolution(network)
    if stem.in_channels != channels:
        stem.weight = nn.Parameter(torch.empty(stem.out_channels, channels, *stem.kernel_size))
        stem.in_channels = channels
        stem.reset_parameters()
    return network
