"""Which experiments' networks were built and found to fit, so that only other ones import torch before a run.

The memory is this folder's own, and safe to delete.
"""

import json
from collections.abc import Iterable

from edpipe.params.plans.curriculum import curriculum
from edpipe.params.plans.registered import REGISTRY
from edpipe.params.schema import Params
from edpipe.pipeline.jobs import paths
from edpipe.pipeline.jobs.data import partition_teachers
from edpipe.pipeline.jobs.model_checks import check_params
from edpipe.storage.atomic import write_text_atomically
from edpipe.storage.code.units import CHOICES
from edpipe.storage.code.versions import tokens
from edpipe.storage.digests import digest_json
from edpipe.storage.records import library_versions, to_json

NOT_OF_NETWORKS = {"budget", "window"}
"""What of a stage's plan no network hangs on."""
MOST_KEPT = 20_000
"""Digests of experiments, 1.4 MB."""


def check_once(params: Params, experiments: Iterable[str]) -> None:
    """As `check_params`, of experiments and trials; networks are built only for those that were not found to fit.

    Raises:
        ParamsError: one line for each thing that is wrong.
    """
    keys = {name: _key(params.with_trials, name) for name in experiments}
    known = _read()
    new = tuple(name for name, key in keys.items() if key not in known)
    check_params(params, tuple(keys), with_networks=False)
    if new:
        check_params(params, new)
        kept = list(dict.fromkeys([*keys.values(), *known]))[:MOST_KEPT]
        write_text_atomically(paths.CHECKED_NETWORKS, to_json(kept))


def _key(params: Params, experiment: str) -> str:
    """Digest of all that decides whether the networks of an experiment fit."""
    knobs = params.experiments[experiment]
    plans = curriculum(params, experiment)
    uses = [
        *(use.teacher for plan in plans for use in plan.teachers),
        *(p.trajectory.teacher for p in plans if p.trajectory),
    ]
    uses += [teacher for teacher, _ in partition_teachers(params.partitions[knobs.partition])]
    return digest_json(
        [
            params.datasets[knobs.dataset],
            params.soft_labels[knobs.dataset],
            params.students[knobs.student],
            [params.teachers[teacher].network for teacher in dict.fromkeys(uses)],
            [plan.model_dump(exclude=NOT_OF_NETWORKS) for plan in plans],
            tokens(unit for unit in (*CHOICES, *REGISTRY.places) if unit.startswith("networks.")),
            library_versions(),
        ]
    )


def _read() -> list[str]:
    try:
        contents = json.loads(paths.CHECKED_NETWORKS.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [key for key in contents if isinstance(key, str)] if isinstance(contents, list) else []
