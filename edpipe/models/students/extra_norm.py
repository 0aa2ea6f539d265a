"""The ED authors' last level: batch normalisation between body and head, folded away when the student is kept."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edpipe.errors import NetworkError
from edpipe.models.probe import model_name
from edpipe.models.splitting.chain import Chain
from edpipe.models.splitting.split import split_into_stages
from edpipe.models.zoo.layers import GlobalPool

_REMEDY = "use students.<name>.reference: adapter, or another model"


class ExtraNorm(nn.Module):
    """A network that ends in mean pooling and a linear layer, with batch normalisation before the pooling.

    Normalisation of evaluation is one factor and one shift for each channel, which the mean leaves as they are and the
    linear layer can take over: the weights that are kept are those of the plain network.

    Raises:
        NetworkError: the network has another head.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        blocks, head = split_into_stages(network, "reference blocks of the authors' kind", _REMEDY)
        layers = [type(unit.module) for unit in head.units]
        if layers != [GlobalPool, nn.Linear]:
            names = ", ".join(layer.__name__ for layer in layers)
            raise NetworkError(
                f"model {model_name(network)!r}: its head is {names or 'empty'}, the authors' last reference needs "
                f"pooling and one linear layer; {_REMEDY}"
            )
        self.network = network
        self._blocks, self._head = (tuple(blocks), (head,))  # in tuples: their weights are the network's
        self.norm = nn.BatchNorm2d(_linear(head).in_features)

    def forward(self, images: Float[Tensor, "sample channel height width"]) -> Float[Tensor, "sample class"]:
        """Logits of a batch."""
        features: Tensor = images
        for block in self._blocks:
            features = block(features)
        return self._head[0](self.norm(features))

    def weights(self) -> dict[str, Tensor]:
        """Copies of the plain network's weights that give what this gives in evaluation."""
        kept = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        unit, linear = self._head[0].units[-1], _linear(self._head[0])
        norm = self.norm
        with torch.no_grad():
            factor = norm.weight / (norm.running_var + norm.eps).sqrt()  # type: ignore[operator]
            shift = norm.bias - factor * norm.running_mean  # type: ignore[operator]
            kept[f"{unit.path}.bias"] = linear.bias + linear.weight @ shift
            kept[f"{unit.path}.weight"] = linear.weight * factor
        return kept


def _linear(head: Chain) -> nn.Linear:
    linear = head.units[-1].module
    assert isinstance(linear, nn.Linear), "the head was looked at before"
    return linear
