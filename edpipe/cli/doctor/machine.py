"""Where edpipe runs: devices, threads, memory, disk, links and locks."""

import fcntl
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from filelock import lock_descriptor
from rich.filesize import decimal as size

from edpipe.cli.doctor.findings import Finding, fault, ok, warning
from edpipe.pipeline.jobs import paths
from edpipe.runtime import bfloat16
from edpipe.runtime.threads import num_processes, num_threads

GPU_FOLDER = Path("/proc/driver/nvidia/gpus")
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
LITTLE_MEMORY = 2 * 10**9
LITTLE_DISK, NO_DISK = 5 * 10**9, 200 * 10**6
"""Bytes free below which a warning is given, and below which even digits do not fit."""
OF_MEMORY = ("tmpfs", "ramfs")
FICLONE = 0x40049409
"""The request by which Linux makes one file share the blocks of another."""


def check_device() -> Iterator[Finding]:
    """Where networks would be computed."""
    import torch

    from edpipe.runtime.device import prepare_device

    device = prepare_device()
    if device.type == "cuda":
        free_bytes, total_bytes = torch.cuda.mem_get_info(device)
        name = torch.cuda.get_device_name(device)
        count = torch.cuda.device_count()
        yield ok("device", f"{device}: {name}, {size(free_bytes)} of {size(total_bytes)} free; GPUs: {count}")
        return
    yield ok("device", f"{device}{_also_mps(torch) if device.type == 'cpu' else ''}")
    has_gpu = GPU_FOLDER.is_dir() and any(GPU_FOLDER.iterdir())
    if has_gpu and not torch.cuda.is_available():
        yield warning(
            "device",
            f"this machine has an NVIDIA GPU that torch {torch.__version__} does not see",
            "install a torch that is built for CUDA, or a driver that is new enough for it",
        )


def check_bfloat16() -> Iterator[Finding]:
    """Whether recipes in bfloat16 would be slow here."""
    if bfloat16.is_slow_here():
        yield warning("bfloat16", bfloat16.SLOW, f"where a recipe says bfloat16, {bfloat16.REMEDY}")


def _also_mps(torch: Any) -> str:
    return "; EDPIPE_DEVICE=mps would use this Mac's GPU" if torch.backends.mps.is_available() else ""


def check_threads() -> Iterator[Finding]:
    """How many threads a step takes, against the cores that it may use."""
    threads, processes, cores = num_threads(), num_processes(), _cores()
    text = f"{threads} threads a step, {cores} cores may be used"
    if threads > cores:
        yield warning("threads", f"{text}: they would wait for each other", f"set OMP_NUM_THREADS={cores}")
    elif processes * threads > cores and not _has_gpu():
        yield warning(
            "threads", f"{text}, EDPIPE_PROCESSES={processes}: they would wait for each other", "unset EDPIPE_PROCESSES"
        )
    else:
        yield ok("threads", text)


def _has_gpu() -> bool:
    return GPU_FOLDER.is_dir() and any(GPU_FOLDER.iterdir())


def _cores() -> int:
    """That this process may use: those it is bound to, or fewer where a container has a share of them only."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_QUOTA.read_text(encoding="ascii").split()
        return min(bound, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such limit, or none at all ("max")
        return bound


def check_memory() -> Iterator[Finding]:
    """The machine's memory."""
    memory = psutil.virtual_memory()
    text = f"{size(memory.available)} of {size(memory.total)} available"
    if memory.available < LITTLE_MEMORY:
        yield warning("memory", text, "end what else runs, or run fewer jobs at once (`snakemake --cores`)")
    else:
        yield ok("memory", text)


def place() -> Path:
    """The folder in which artifacts lie or would lie."""
    return paths.ARTIFACTS if paths.ARTIFACTS.is_dir() else Path()


def check_disk() -> Iterator[Finding]:
    """Room for artifacts, and on what."""
    where = place()
    kind, usage, names = file_system(where.resolve()), shutil.disk_usage(where), os.statvfs(where)
    text = f"{size(usage.free)} of {size(usage.total)} free for {paths.ARTIFACTS}, on {kind}"
    if usage.free < NO_DISK:
        yield fault("disk", text, "make room (`edpipe cache --delete`), or let artifacts be a link to a larger disk")
    elif usage.free < LITTLE_DISK:
        yield warning("disk", text, "`edpipe plan soft-labels EXPERIMENT` says what storing needs")
    else:
        yield ok("disk", text)
    if names.f_files and not names.f_favail:
        yield fault("disk", "no file can be added, whatever room there is: no inode is free", "delete small files")
    if kind in OF_MEMORY:
        yield warning(
            "disk", f"{kind} is memory: what lies there is gone after a restart", "keep the project on a disk"
        )


def file_system(path: Path) -> str:
    """The type of the file system that holds the folder, as the machine calls it."""
    mounts = [part for part in psutil.disk_partitions(all=True) if path.is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else "an unknown file system"


@contextmanager
def _trial_folder() -> Iterator[Path]:
    """An empty folder beside the artifacts, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=".doctor-", dir=place()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_writing() -> Iterator[Finding]:
    """Whether files can be written, linked and locked where artifacts lie."""
    try:
        with _trial_folder() as folder:
            (folder / "one").write_bytes(bytes(4096))
            yield ok(
                "links",
                f"hard links: {_said(_can_link(folder))}; shared blocks (reflinks): {_said(_can_clone(folder))}",
            )
            yield from _lock_findings(folder / "lock")
    except OSError as error:
        yield fault(
            "disk",
            f"nothing can be written to {place().absolute()}: {error.strerror or error}",
            "give yourself the right to, or work in a folder of your own",
        )


def _said(can: bool) -> str:
    return "yes" if can else "no"


def _can_link(folder: Path) -> bool:
    try:
        os.link(folder / "one", folder / "two")
    except OSError:
        return False
    return True


def _can_clone(folder: Path) -> bool:
    with (folder / "one").open("rb") as source, (folder / "three").open("wb") as target:
        try:
            fcntl.ioctl(target.fileno(), FICLONE, source.fileno())
        except OSError:
            return False
    return True


def _lock_findings(path: Path) -> Iterator[Finding]:
    """Whether a second one is kept out while the first has the lock: else two steps could write one file."""
    remedy = "mount this file system with locks (NFS: version 4, or without nolock), or move the project to another"
    first, second = (os.open(path, os.O_RDWR | os.O_CREAT, 0o600) for _ in range(2))
    try:
        if not lock_descriptor(first, blocking=False):
            yield fault("locks", "a new file is locked already", remedy)
        elif lock_descriptor(second, blocking=False):
            yield fault("locks", "two have one lock at once: two steps could write one file", remedy)
        else:
            yield ok("locks", "keep a second process out")
    except OSError as error:
        yield fault("locks", f"files cannot be locked here: {error.strerror or error}", remedy)
    finally:
        os.close(first)
        os.close(second)
