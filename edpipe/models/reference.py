"""Teaching reference blocks: what stands in for the blocks that a student does not have yet."""

from collections import OrderedDict

from torch import nn

from edpipe.models.zoo import GlobalPool, drawing

REFERENCES = ("adapter", "linear")


def build_reference(kind: str, in_channels: int, final_channels: int, num_outputs: int, seed: int) -> nn.Sequential:
    """Features (sample channel height width) to logits (sample num_outputs), with freshly drawn weights.

    adapter: 1×1 convolution to the width that the last body block would give, BN, ReLU, pool, linear.
    linear: pool, linear.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind not in REFERENCES:
        raise ValueError(f"reference must be one of {', '.join(REFERENCES)}, got {kind!r}")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    with drawing(seed):
        if kind == "adapter":
            adapter = nn.Conv2d(in_channels, final_channels, 1, bias=False)
            nn.init.kaiming_normal_(adapter.weight, mode="fan_out", nonlinearity="relu")
            layers["adapter"] = adapter
            layers["bn"] = nn.BatchNorm2d(final_channels)
            layers["relu"] = nn.ReLU()
        layers["pool"] = GlobalPool()
        layers["fc"] = nn.Linear(final_channels if kind == "adapter" else in_channels, num_outputs)
    return nn.Sequential(layers)
