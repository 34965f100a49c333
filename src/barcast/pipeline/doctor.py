"""What this machine has, and what would be worth changing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from barcast.core.atomic import sweep_leftovers
from barcast.core.cores import available_cores
from barcast.core.memory import MALLOC_SWITCH
from barcast.core.progress import count
from barcast.core.runs import broken_runs, environment, list_runs
from barcast.core.workspace import Workspace
from barcast.pipeline.unfinished import INTERRUPTED, run_status


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what was found, what to do (empty when nothing)."""

    name: str
    found: str
    advice: str = ""


def examine(workspace: Workspace) -> list[Finding]:
    """Look at versions, processor, memory, disk, GPU, allocator, caches and the workspace."""
    return [
        *_versions(),
        *_processor(),
        _memory(),
        _disk(workspace),
        _gpu(),
        _malloc(),
        _kernels(),
        *_place(workspace),
    ]


def _versions() -> list[Finding]:
    found = environment()
    python = Finding("python", f"{found['python']} on {found['system']} {found['machine']}")
    return [python, *(Finding(name, version) for name, version in found["packages"].items())]


def _processor() -> list[Finding]:
    import torch

    from barcast.training.precision import has_bf16

    bf16 = has_bf16("cpu")
    level = torch.backends.cpu.get_cpu_capability()
    return [
        Finding("cores", f"{available_cores()} usable, torch uses {torch.get_num_threads()}"),
        Finding("processor", f"{platform.processor() or platform.machine()}, {level}"),
        Finding("bf16", "yes: LSTM training runs in bf16" if bf16 else "no: training runs in float32"),
    ]


def _memory() -> Finding:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return Finding("memory", "unknown on this system")
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}
    free = sizes.get("MemAvailable", 0)
    advice = "4,000 symbols of daily bars want about 4 GiB free: close something, or use --limit"
    found = f"{free / 2**30:.1f} GiB available of {sizes['MemTotal'] / 2**30:.1f}"
    return Finding("memory", found, advice if free < 4 * 2**30 else "")


def _disk(workspace: Workspace) -> Finding:
    place = workspace.root
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    advice = "a whole market with its panel takes about 3 GiB" if free < 3 * 2**30 else ""
    return Finding("disk", f"{free / 2**30:.1f} GiB free at {place}", advice)


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        advice = "" if torch.version.cuda is None else "torch has CUDA but sees no device: check the driver"
        return Finding("gpu", "none", advice)
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding("gpu", ", ".join(names))


def _malloc() -> Finding:
    if not sys.platform.startswith("linux"):
        return Finding("allocator", "as the system has it")
    if os.environ.get(MALLOC_SWITCH) == "1":
        return Finding(
            "allocator", f"untouched ({MALLOC_SWITCH}=1)", "training is up to twice as fast without it"
        )
    return Finding("allocator", "keeps freed blocks in training commands")


def _kernels() -> Finding:
    from barcast.core.compilation import CACHED, ENVIRONMENT_VARIABLE

    folder = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if not CACHED:
        return Finding("kernel cache", "none", f"set {ENVIRONMENT_VARIABLE} to a folder that you can write")
    files = list(Path(folder).rglob("*.nbc"))
    return Finding("kernel cache", f"{len(files)} compiled kernels at {folder}")


def _place(workspace: Workspace) -> list[Finding]:
    findings = [Finding("workspace", str(workspace.root))]
    if (workspace.market / "store.json").is_file():
        from barcast.store import MarketStore

        info = MarketStore.open(workspace.market).info()
        found = f"version {info.version}: {info.num_symbols} symbols, {count(info.num_rows)} bars"
        findings.append(Finding("store", found))
    else:
        findings.append(Finding("store", "none here", "barcast quickstart, or barcast data import PATH"))
    runs = list_runs(workspace)
    unfinished = [run.name for run in runs if run_status(run) == INTERRUPTED]
    advice = f"interrupted: {', '.join(unfinished)}: `barcast runs` says what resumes" if unfinished else ""
    findings.append(Finding("runs", str(len(runs)), advice))
    if broken := broken_runs(workspace):
        advice = "their run.json cannot be read: restore it, or remove these folders and train again"
        findings.append(Finding("broken runs", ", ".join(run.name for run in broken), advice))
    if swept := _sweep(workspace):
        findings.append(Finding("leftovers", f"removed {swept} half-written files of killed commands"))
    size = (
        sum(f.stat().st_size for f in workspace.cache.rglob("*") if f.is_file())
        if workspace.cache.is_dir()
        else 0
    )
    findings.append(Finding("cache", f"{size / 2**30:.2f} GiB (may be deleted at any time)"))
    return findings


def _sweep(workspace: Workspace) -> int:
    """Sweep the folders that are written by renaming; what a user keeps elsewhere is not looked at."""
    places = (workspace.runs, workspace.market, workspace.cache)
    return sum(
        sweep_leftovers(folder)
        for place in places
        for folder in (place, *place.glob("*/"), *place.glob("*/*/"))
        if folder.is_dir()
    )
