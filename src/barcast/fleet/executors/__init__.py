"""Executors: serial, processes of this machine, a Ray cluster; the driver alone keeps what they bring."""

from __future__ import annotations

from typing import Literal, get_args

from barcast.core.errors import UsageError
from barcast.fleet.executors.base import Executor, Finished
from barcast.fleet.work import FitSource

ExecutorName = Literal["serial", "processes", "ray"]


def check_executor(name: str, address: str | None = None) -> None:
    """Refuse an unknown name, and an address without Ray (`UsageError`)."""
    if name not in get_args(ExecutorName):
        raise UsageError(
            f"there is no executor {name!r}", f"choose one of {', '.join(get_args(ExecutorName))}"
        )
    if address is not None and name != "ray":
        raise UsageError(f"an address is of a Ray cluster, the executor is {name}", "add --executor ray")


def executor(
    name: ExecutorName,
    num_workers: int,
    source: FitSource,
    *,
    worker_bytes: int | None = None,
    batch_size: int | None = None,
    address: str | None = None,
) -> Executor:
    """Return an executor whose workers are being started; close it in the end.

    Parameters
    ----------
    name : str
        ``serial``, ``processes`` or ``ray``.
    num_workers : int
        At least 1; serial has one whatever is asked for.
    source : FitSource
        How every worker makes its fit.
    worker_bytes : int, optional
        What one worker may occupy before it is replaced, after its current unit; serial cannot.
    batch_size : int, optional
        Units of one worker at a time; by default as their measured seconds ask for.
    address : str, optional
        Of a Ray cluster; by default one of this machine is started and ended.

    Raises
    ------
    UsageError
        For an unknown name, an address without Ray, numbers below 1, or Ray where it is not installed.
    ResourceError
        When a Ray cluster cannot be reached or started.
    """
    check_executor(name, address)
    if num_workers < 1 or (batch_size is not None and batch_size < 1):
        raise UsageError(f"{num_workers} workers, batches of {batch_size}", "both must be at least 1")
    if name == "serial":
        from barcast.fleet.executors.serial import SerialExecutor

        return SerialExecutor(source)
    if name == "processes":
        from barcast.fleet.executors.processes import ProcessExecutor

        return ProcessExecutor(num_workers, source, worker_bytes=worker_bytes, batch_size=batch_size)
    from barcast.fleet.executors.ray import RayExecutor

    return RayExecutor(num_workers, source, worker_bytes=worker_bytes, batch_size=batch_size, address=address)


__all__ = ["Executor", "ExecutorName", "Finished", "check_executor", "executor"]
