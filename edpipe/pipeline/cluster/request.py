"""What a job of Snakemake asks of a cluster, as the script says that Snakemake would submit."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edpipe.errors import EdpipeError
from edpipe.pipeline.cluster.settings import ClusterSettings, StepLimits

PROPERTIES = re.compile(r"^# properties = (\{.*\})$", re.MULTILINE)
"""A line of Snakemake's scripts for clusters."""
LONGEST_NAME = 100


@dataclass(frozen=True)
class Request:
    """One job, or several that Snakemake submits as one (a group)."""

    name: str
    """Of the job's folder; the same for the same outputs."""
    step: str
    """Name of the rule; of a group its name."""
    logs: tuple[str, ...]
    identity: str
    """Changes with the outputs, the knobs and the code: another run's job may be taken over if this is the same."""
    cpus: int
    gpus: int
    mem_mb: int
    minutes: int
    nodes: int


def read_request(script: Path, settings: ClusterSettings) -> Request:
    """The request of a script that Snakemake wrote.

    Raises:
        EdpipeError: it is no such script.
    """
    found = PROPERTIES.search(script.read_text(encoding="utf-8"))
    if found is None:
        raise EdpipeError(
            f"{script}: is no job script of Snakemake; `edpipe-cluster submit` is called by Snakemake, as the submit "
            "command of a profile"
        )
    return request_of(json.loads(found[1]), settings)


def request_of(properties: dict[str, Any], settings: ClusterSettings) -> Request:
    """The same from the properties that Snakemake tells of a job."""
    is_group = properties.get("type") == "group"
    step = str(properties["groupid"] if is_group else properties["rule"])
    resources, limits = properties.get("resources", {}), settings.steps.get(step, StepLimits())
    cpus = limits.cpus or int(properties.get("threads", resources.get("_cores", 1)))
    return Request(
        name=_name(step, properties),
        step=step,
        logs=tuple(map(str, properties.get("log", ()))),
        identity=_digest([properties["output"], properties.get("params")]),
        cpus=min(cpus, settings.max_cpus or cpus),
        gpus=int(resources.get("gpu", 0)) if limits.gpus is None else limits.gpus,
        mem_mb=limits.mem_mb or int(resources.get("mem_mb", 4000)),
        minutes=limits.minutes or int(resources.get("runtime", 120)),
        nodes=int(resources.get("nodes", 1)),
    )


def _name(step: str, properties: dict[str, Any]) -> str:
    """Readable, a file name, and different for different outputs."""
    words = "-".join([step, *map(str, properties.get("wildcards", {}).values())])
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", words)[:LONGEST_NAME]
    return f"{readable}-{_digest(sorted(properties['output']))[:8]}"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
