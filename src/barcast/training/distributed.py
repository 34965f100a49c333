"""Several processes train one network, one on each device: ``torchrun --nproc-per-node N -m barcast train``.

The first process does everything that one process alone does; the others only help it to train. It reads,
checks and prepares the data once, lays what training reads beside the run, where the helpers map it, and says
through torchrun's store what is to be trained. Only the first process writes, and only it prints. It predicts
alone: the helpers have no part in that, and wait for the next training (a refit) or for the end.

A batch is cut among the processes as one process cuts it into parts, each loss is a sum over labels divided
by those of the whole batch, and gradients are summed. ``DistributedDataParallel`` does the summing, told to
add (by itself it takes the mean of the processes). It is called when a process has its whole gradient, with a
pass that adds nothing to it (:class:`_Gradients`), rather than around the network's own pass: threads may
have computed the parts, the share of a process may be empty, and a process whose memory ran out must be able
to say so before any gradient has left. All of them then halve their parts together and compute the step
again. The price is that sending does not overlap with the backward pass.

Sums of two numbers have one order: with two processes on CPUs a resumed training is bit-equal. With more, and
on GPUs, results agree within rounding. A process that dies closes its connections; the others end at once on
a CPU, after ``TIMEOUT`` at the latest elsewhere, and ``torchrun`` ends them sooner.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from barcast.core.arrays import F32, F64
from barcast.core.config import from_plain, to_plain
from barcast.core.cores import available_cores
from barcast.core.errors import BarcastError, RunError, UsageError
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.training.config import TrainConfig
from barcast.training.memory import is_out_of_memory
from barcast.training.precision import DivergedError
from barcast.windows.gather import Resident
from barcast.windows.shards import FIELDS

if TYPE_CHECKING:
    from barcast.models.network import Sizes
    from barcast.training.networks import TrainingData

T = TypeVar("T")
A = TypeVar("A", F32, F64)

#: What a process waits at most for the others within one exchange.
TIMEOUT = timedelta(minutes=10)
#: How often a helper asks whether there is something to do.
POLL_SECONDS = 0.1
#: How long a helper that fails waits for the first process to say the same.
SAID_SECONDS = 2.0
#: Arrays of a training, beside its run until every helper has mapped them.
_SHARED_FOLDER = "shared"
#: How torch's back ends name a connection that ended.
_LOST_WORDS = ("onnection closed", "onnection reset", "roken pipe", "imed out", "NCCL", "gloo")


class LostError(RunError):
    """Another process of the training ended."""

    def __init__(self) -> None:
        super().__init__(
            "another process of this training ended, and training with it",
            "the same torchrun command goes on from the last checkpoint",
        )


class GivenUpError(Exception):
    """The first process has given this training up; it says why, and decides what follows."""


class Team:
    """The processes that train together; by default this one alone, which sends nothing.

    Attributes
    ----------
    rank, size : int
        Number of this process, from 0, and of all.
    local_rank, local_size : int
        The same on this machine.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, local_rank: int = 0, local_size: int = 1, store: Any = None
    ) -> None:
        self.rank, self.size, self.local_rank, self.local_size = rank, size, local_rank, local_size
        self.store, self.num_jobs = store, 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes and decides."""
        return self.rank == 0

    @property
    def num_threads(self) -> int:
        """The share of the machine's cores that is this process's."""
        # torchrun sets 1 where nothing was said
        told = os.environ.get("OMP_NUM_THREADS", "1")
        return int(told) if told != "1" else max(available_cores() // self.local_size, 1)

    def device(self, name: str) -> str:
        """Return this process's device: ``cuda`` is the GPU of its number on this machine.

        Raises
        ------
        UsageError
            When one GPU is named for several processes, or there are too few.
        """
        if self.size == 1 or name == "cpu":
            return name
        if name != "cuda":
            raise UsageError(f"{self.size} processes cannot share `{name}`", "--device cuda: one GPU each")
        if self.local_size > torch.cuda.device_count():
            raise UsageError(
                f"{self.local_size} processes, but this machine has {torch.cuda.device_count()} GPUs",
                f"torchrun --nproc-per-node {torch.cuda.device_count()}",
            )
        torch.cuda.set_device(self.local_rank)
        return f"cuda:{self.local_rank}"

    def share(self, parts: Sequence[T]) -> Sequence[T]:
        """Return the consecutive ones that this process computes of what all of them do."""
        each = -(-len(parts) // self.size)
        return parts[self.rank * each : (self.rank + 1) * each]

    def sum(self, values: A) -> A:
        """Return the sum over all processes, on all of them."""
        if self.size == 1:
            return values
        import torch.distributed as dist

        total = torch.from_numpy(values)
        with lost_explained():
            dist.all_reduce(total)
        return values

    def first(self, value: float) -> float:
        """Return the first process's value, on all of them."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        held = torch.tensor([value], dtype=torch.float64)
        with lost_explained():
            dist.broadcast(held, 0)
        return float(held)

    def of_first(self, compute: Callable[[], float]) -> float:
        """Return what the first process computes, on all; where it fails, the others raise GivenUpError."""
        if not self.is_first:
            if self.first(0.0):
                raise GivenUpError
            return self.first(0.0)
        try:
            value = compute()
        except BaseException:
            self.first(1.0)
            raise
        self.first(0.0)
        return self.first(value)


_ALONE = Team()
#: All processes, and those that train the network at hand.
_all, _at_work = _ALONE, _ALONE


def team_at_work() -> Team:
    """Return the processes that train the network at hand."""
    return _at_work


def whole_team() -> Team:
    """Return all processes of the command."""
    return _all


# --- gradients ---------------------------------------------------------------------------------------------


class _Gradients(nn.Module):
    """A pass that reads every weight and adds 0 to its gradient: what was gathered there is then sent."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.weights = nn.ParameterList(network.parameters())  # no buffers: they follow from the options

    def forward(self) -> Tensor:
        """Return 0."""
        zeros = [(weight * 0.0).sum() for weight in self.weights if weight.requires_grad]
        return torch.stack(zeros).sum()


class GradientSum:
    """Sums the gradients of all processes; made by all of them at once, with the first one's weights for all.

    Parameters
    ----------
    team : Team
    network : Module
        On this process's device.
    """

    def __init__(self, team: Team, network: nn.Module) -> None:
        self.team = team
        import torch.distributed as dist
        from torch.nn.parallel import DistributedDataParallel

        def add(_, bucket):  # type: ignore[no-untyped-def]  # torch refuses annotations as text
            sending = dist.all_reduce(bucket.buffer(), async_op=True)
            return sending.get_future().then(lambda done: done.value()[0])

        with lost_explained():
            self.ddp = DistributedDataParallel(_Gradients(network))
            self.ddp.register_comm_hook(None, add)

    def together(self, compute: Callable[[], float], step: int) -> float:
        """Let ``compute`` add up the gradient of this process's share; sum gradients and losses of all.

        Raises
        ------
        MemoryError
            On all processes, when memory ran out on one: none has sent its gradient then.
        RunError
            When another process failed.
        """
        loss, failure = 0.0, None
        try:
            loss = compute()
        except (MemoryError, RuntimeError, BarcastError) as error:
            failure = error
        short = failure is not None and is_out_of_memory(failure)
        diverged = isinstance(failure, DivergedError)
        told = np.array([loss, short, diverged, failure is not None and not (short or diverged)])
        total = self.team.sum(told)
        if failure is not None and not short:
            raise failure
        if total[3]:
            raise LostError
        if total[2]:
            raise DivergedError(float("nan"), step)
        if total[1]:
            raise MemoryError("out of memory in a process of this training")
        with lost_explained():
            self.ddp().backward()
        return float(total[0])


@contextmanager
def lost_explained() -> Iterator[None]:
    """Turn a connection that ended into :class:`LostError`."""
    try:
        yield
    except RuntimeError as error:
        if any(word in str(error) for word in _LOST_WORDS):
            raise LostError from error
        raise


# --- one command, several processes ------------------------------------------------------------------------


def in_team(command: Callable[[], int], explained: Callable[[Callable[[], Any]], int]) -> int:
    """Run ``command`` in the first process of torchrun's, and let the others help it until it ends.

    Parameters
    ----------
    command : callable
        Returns its exit code.
    explained : callable
        Calls what a helper does, says what went wrong, returns the exit code.

    Returns
    -------
    int
        The exit code of this process.
    """
    global _all
    _all = team = _join()
    if not team.is_first:
        return explained(lambda: _help(team))
    torch.set_num_threads(team.num_threads * team.local_size)  # helpers idle while the first one works alone
    code = 1
    try:
        code = command()
    finally:
        team.store.set("end", str(code))
    return code


def _join() -> Team:
    """Meet the other processes."""
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    local_rank, local_size = (int(os.environ[name]) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    dist.init_process_group(
        backend, store=PrefixStore("groups", store), rank=rank, world_size=size, timeout=TIMEOUT
    )
    return Team(rank, size, local_rank, local_size, PrefixStore("barcast", store))


@dataclass(frozen=True)
class Job:
    """What a helper must know of a training.

    Attributes
    ----------
    model : str
        Registered name.
    options : object
        The model's own options.
    train : TrainConfig
    sizes : Sizes
        What the data decides about the network's shape.
    target : str
        Training target, which decides the loss.
    steps : int or None
        As :func:`~barcast.training.loop.fit_network` takes them.
    """

    model: str
    options: Any
    train: TrainConfig
    sizes: Sizes
    target: str
    steps: int | None


@contextmanager
def helped(job: Job, data: TrainingData, run: RunFolder) -> Iterator[None]:
    """Have the other processes train along inside of the block; alone it does nothing.

    What training reads is laid beside the run, where every process can map it.
    """
    global _at_work
    if _all.size == 1:
        yield
        return
    folder = run.path / _SHARED_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: getattr(data.resident, name).cpu().numpy() for name in FIELDS}
    for name, array in {**arrays, "lives": data.lives, "fit": data.fit, "stop": data.stop}.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    how = {"run": str(run.path.resolve()), "anchored": data.resident.anchored, "shard_rows": data.shard_rows}
    _all.num_jobs += 1
    _all.store.set(f"job-{_all.num_jobs}", json.dumps({**to_plain(job), **how}))
    _at_work = _all
    try:
        _all.first(0.0)  # all have mapped the arrays
        shutil.rmtree(folder)
        yield
    except BarcastError as error:
        _all.store.set(f"failed-{_all.num_jobs}", type(error).__name__)
        raise
    finally:
        _at_work = _ALONE


def _help(team: Team) -> int:
    """Train along until the first process ends; return 0, or a failure's code where it was lost."""
    global _at_work
    ended: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        ended.append(number)

    # Ctrl-C reaches every process; the first one decides when to stop, in the middle of no exchange
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)
    while not ended:
        if team.store.check([f"job-{team.num_jobs + 1}"]):
            team.num_jobs += 1
            _at_work = team
            try:
                _train_along(team, json.loads(team.store.get(f"job-{team.num_jobs}")))
            except LostError as error:
                return error.exit_code  # whoever ended has said why
            except GivenUpError:
                continue
            except BarcastError as error:
                if not _failed_everywhere(team, error):
                    raise
            finally:
                _at_work = _ALONE
        elif team.store.check(["end"]):
            return 0
        else:
            time.sleep(POLL_SECONDS)
    return 128 + ended[0]


def _failed_everywhere(team: Team, error: BarcastError) -> bool:
    """Return whether the first process has failed in the same way: it says so, and decides what follows."""
    until, key = time.monotonic() + SAID_SECONDS, f"failed-{team.num_jobs}"
    while not team.store.check([key]) and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
    return bool(team.store.check([key])) and team.store.get(key).decode() == type(error).__name__


def _train_along(team: Team, job: Mapping[str, Any]) -> None:
    from barcast.models.heads import head_of
    from barcast.models.network import Sizes
    from barcast.models.registry import model_entry
    from barcast.training.loop import fit_network
    from barcast.training.networks import TrainingData, put_on_device

    entry, path = model_entry(job["model"]), Path(job["run"])
    config = from_plain(TrainConfig, job["train"], "train")
    config = replace(config, device=team.device(config.device.split(":")[0]))
    arrays = {
        file.stem: np.load(file, mmap_mode="c", allow_pickle=False)
        for file in (path / _SHARED_FOLDER).glob("*.npy")
    }
    team.first(0.0)
    held = {name: torch.from_numpy(arrays[name]) for name in FIELDS}
    host = Resident(**held, anchored=job["anchored"])
    data = TrainingData(host, arrays["lives"], arrays["fit"], arrays["stop"])
    options: Any = from_plain(entry.config, job["options"], job["model"])
    network = entry.build(options, from_plain(Sizes, job["sizes"], "sizes")).to(config.device)
    loss = head_of(job["target"]).loss or entry.loss
    assert loss is not None
    fit_network(
        network, put_on_device(data, config, job["shard_rows"]), config, loss,
        lambda rows, outputs: float("nan"), _HelpersRun(path), Progress(enabled=False), steps=job["steps"],
    )  # fmt: skip


class _HelpersRun(RunFolder):
    """The run as helpers have it: they read it, the first process writes it."""

    def write(self, name: str, value: Any) -> None:
        """Leave it to the first process."""

    def append_metrics(self, values: Mapping[str, Any]) -> None:
        """Leave it to the first process."""

    def keep_metrics(self, until_step: int) -> None:
        """Leave it to the first process."""
