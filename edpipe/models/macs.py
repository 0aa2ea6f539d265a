"""What a network costs: multiply-accumulates and parameters."""

from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edpipe.models.probe import evaluating, probe_images


def count_macs(network: nn.Module, channels: int, image_size: int) -> int:
    """Multiply-accumulates of one forward pass over one square image.

    Counted are convolutions, linear layers and attention products, as torch's FLOP counter does (two FLOPs are one
    multiply-accumulate); normalisation, activations and pooling are not. The network is left as it was.
    """
    image = probe_images(network, channels, image_size)[:1]
    with evaluating(network), FlopCounterMode(display=False) as counter:
        network(image)
    return counter.get_total_flops() // 2


def count_training_macs(network: nn.Module, channels: int, image_size: int, frozen: nn.Module | None = None) -> int:
    """Multiply-accumulates of one forward and one backward pass over one square image, see `count_macs`.

    A backward pass costs about twice a forward pass: one product for the inputs' gradients, one for the weights'.

    Args:
        network: what is trained, frozen blocks included.
        channels: of the image.
        image_size: its side, pixels.
        frozen: the network's first blocks, if they do not learn; they have no backward pass.
    """
    without_backward = 0 if frozen is None else count_macs(frozen, channels, image_size)
    return 3 * count_macs(network, channels, image_size) - 2 * without_backward


def count_parameters(network: nn.Module) -> int:
    """Trainable and frozen parameters; buffers are not counted."""
    return sum(parameter.numel() for parameter in network.parameters())
