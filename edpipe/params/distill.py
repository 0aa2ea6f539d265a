"""Knobs of `distill:`: how a student's outputs are compared with a teacher's."""

from typing import Annotated, Literal

from pydantic import Field

from edpipe.params.base import Knobs


class KdAlgorithm(Knobs):
    """Divergence of the softened softmaxes (Hinton et al. 2015)."""

    kind: Literal["kd"]
    standardise: bool = Field(
        False, description="Logits of both are brought to mean 0 and deviation 1 first (Sun et al. 2024)."
    )


PLAIN_KD = KdAlgorithm(kind="kd", standardise=False)


class DkdWeights(Knobs):
    """Decoupled knowledge distillation (Zhao et al. 2022): the label's share, and the others among themselves."""

    alpha: Annotated[float, Field(ge=0)] = Field(1.0, description="Weight of the label's share.")
    beta: Annotated[float, Field(ge=0)] = Field(8.0, description="Weight of the other classes among themselves.")
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        1 / 12, description="Share of the stage over which the distillation loss rises from 0; 20 of 240 epochs."
    )


class DkdAlgorithm(DkdWeights):
    """Decoupled knowledge distillation."""

    kind: Literal["dkd"]


class DistWeights(Knobs):
    """Correlation instead of divergence (Huang et al. 2022, "DIST")."""

    beta: Annotated[float, Field(ge=0)] = Field(2.0, description="Weight of the correlation over classes.")
    gamma: Annotated[float, Field(ge=0)] = Field(2.0, description="Weight of the correlation over the batch.")


class DistAlgorithm(DistWeights):
    """DIST."""

    kind: Literal["dist"]


class AtAlgorithm(Knobs):
    """Attention maps of every feature stage (Zagoruyko and Komodakis 2017); soft labels must hold them."""

    kind: Literal["at"]


class FitnetAlgorithm(Knobs):
    """The features of one stage, through a regressor (Romero et al. 2015); soft labels must hold them."""

    kind: Literal["fitnet"]


SchoolAlgorithm = Annotated[KdAlgorithm | DkdAlgorithm | DistAlgorithm | AtAlgorithm, Field(discriminator="kind")]
"""What each level of a school can use; a hint needs the one stage that it is of."""
Algorithm = Annotated[
    KdAlgorithm | DkdAlgorithm | DistAlgorithm | AtAlgorithm | FitnetAlgorithm, Field(discriminator="kind")
]
FEATURE_WEIGHTS = {"at": 1000.0, "fitnet": 100.0}
"""Weights of losses that are no divergence, as in the RepDistiller code."""
