"""One training over several processes, as torchrun starts them: who has which clips, and what they tell one another.

Every rank holds the whole model and all of ULGM's labels. Of each window's clips it takes its share through the network;
then gradients are summed and features gathered, so that all ranks make the same step and the same labels.
"""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from utils.device import known_gpus
from utils.errors import DivergedError, UserError, first_line, translate
from utils.signals import Stopped

PATIENCE = timedelta(minutes=30)  # for a rank that is silent: the first converts feature files, and tests, alone
BUCKET = 1 << 24  # numbers that travel together


class RankLostError(UserError):
    """Another process of the run is gone, or can't be reached."""

    def __init__(self, error: object):
        reason = first_line(str(error).split("] ")[-1])  # in front of it stands where in gloo's source that was
        super().__init__(
            f"another rank of this run is gone ({reason}); --resume goes on from the last saving, with any number of ranks"
        )


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together. Where there is only one, everything is its share."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among those on this machine
    store: dist.Store | None = None

    @property
    def is_rank_zero(self) -> bool:
        """The first rank writes a run's results, and says how it goes."""
        return self.rank == 0

    def share(self, clips: int) -> tuple[int, int]:
        """Of so many clips, this rank's: from the first number up to the second. In the order of ranks they are all."""
        return self.rank * clips // self.size, (self.rank + 1) * clips // self.size

    def combine(
        self, features: dict[str, Tensor], losses: Tensor, parameters: Iterable[Tensor], clips: int
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Makes of each rank's share of a window the whole window, equal to the bit on all ranks.

        features, losses: task -> (share, D), (share,); returned for all the window's clips. Gradients are summed in place.
        """
        if self.size == 1:
            return features, losses
        everything = self.gather(features | {"": losses}, clips)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for bucket in _buckets(gradients):
            flat = torch.nn.utils.parameters_to_vector(bucket)
            _collective(dist.all_reduce, flat)
            torch.nn.utils.vector_to_parameters(flat, bucket)
        return everything, everything.pop("")

    @torch.no_grad()
    def gather(self, rows: dict[str, Tensor], clips: int) -> dict[str, Tensor]:
        """name -> (share, ...) float32, rows of this rank's share of so many clips -> name -> (clips, ...), of all of them."""
        if self.size == 1:
            return rows
        start, end = self.share(clips)
        flat = [part[: end - start].reshape(end - start, math.prod(part.shape[1:])) for part in rows.values()]
        mine = torch.cat(flat, dim=1)
        every = mine.new_zeros(clips, mine.shape[1])
        every[start:end] = mine
        _collective(dist.all_reduce, every)  # of each row, all ranks but one have zeros
        parts = every.split([part.shape[1] for part in flat], dim=1)
        return {
            name: part.reshape(clips, *row.shape[1:]) for (name, row), part in zip(rows.items(), parts, strict=True)
        }

    def all_reduce_max(self, number: int) -> int:
        """The largest of the ranks' numbers. Waits for no GPU."""
        if self.size == 1:
            return number
        numbers = torch.tensor(number)
        _collective(dist.all_reduce, numbers, dist.ReduceOp.MAX)
        return int(numbers)

    def broadcast_object(self, value: object = None) -> object:
        """What the first rank says here."""
        if self.size == 1:
            return value
        said = [value]
        _collective(dist.broadcast_object_list, said, src=0, device=torch.device("cpu"))
        return said[0]

    def broadcast_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Fills tensors with the values that they have on the first rank."""
        for tensor in tensors:
            if self.size > 1:
                _collective(dist.broadcast, tensor, src=0)

    def seed_dropout(self, *numbers: int) -> None:
        """Lets the ranks draw different numbers, for dropout: by these and the rank, so that none of it need be saved."""
        if self.size > 1:
            torch.manual_seed(int(np.random.SeedSequence([*numbers, self.rank]).generate_state(1)[0]))

    def rank_zero_first(self, call: Callable[[], object]) -> object:
        """What a call returns that makes files: each machine's first rank calls before the others, who find them made."""
        if self.local_rank == 0:
            made = call()
        self.all_reduce_max(0)
        if self.local_rank > 0:
            made = call()
        self.all_reduce_max(0)
        return made

    def check_equal(self, **values: object) -> None:
        """Raises UserError on a rank that trains something else than the first one: it would learn nonsense, or wait for ever."""
        first = self.broadcast_object(values)
        if other := [name for name in values if values[name] != first[name]]:
            was = "; ".join(f"{name} {values[name]}, there {first[name]}" for name in other)
            raise UserError(
                f"rank {self.rank} would train something else than rank 0 ({was}): give all the same flags and files"
            )
        self.all_reduce_max(0)

    def close(self) -> None:
        if self.size > 1:
            dist.destroy_process_group()

    @contextlib.contextmanager
    def one_rank_reports(self) -> Iterator[None]:
        """In this context one rank tells why the run ends early, and the others end in silence."""
        try:
            yield
        except Exception as error:
            fault = translate(error)
            if fault is None:
                raise
            all_know = isinstance(error, DivergedError)
            if self.size > 1 and (all_know and not self.is_rank_zero or not self._claims_the_report()):
                raise SystemExit(2) from None
            raise fault from None
        except Stopped as stop:
            if not self.is_rank_zero:
                raise SystemExit(stop.status) from None
            self._claims_the_report()  # so that nobody speaks of this rank as lost
            raise

    def _claims_the_report(self) -> bool:
        try:
            return self.store is None or self.store.add("told", 1) == 1
        except RuntimeError:  # it is kept on the first machine, which is gone
            return self.rank == 1

    def choose_gpus(self, gpu_ids: Sequence[int] | None) -> Sequence[int] | None:
        """What --gpu_ids is for this process: one GPU of those that it names. Raises UserError for one that isn't there."""
        gpus = known_gpus(gpu_ids)
        if self.size == 1:
            return gpu_ids
        if gpus and self.local_rank >= len(gpus):
            raise UserError(
                f"torchrun started more processes on this machine than it has GPUs for them ({len(gpus)}): lower "
                "--nproc_per_node, or name the CPU with --gpu_ids -1"
            )
        return [gpus[self.local_rank]] if gpus else [-1]


ALONE = Ranks()


def is_rank() -> bool:
    """Whether torchrun started this process as one of several."""
    return {"RANK", "LOCAL_RANK", "MASTER_ADDR"} <= os.environ.keys() and os.environ.get("WORLD_SIZE", "1") != "1"


def join_ranks() -> Ranks:
    """Meets the other processes of the run, if torchrun started several. Raises RankLostError where they don't come."""
    if not is_rank():
        return ALONE
    store, rank, size = _collective(next, rendezvous("env://"))
    group = dist.PrefixStore("group", store)
    # Joining waits where no signal reaches it: so all are waited for first.
    group.set(f"here {rank}", "")
    end = time.monotonic() + PATIENCE.total_seconds()
    while not _collective(group.check, [f"here {other}" for other in range(size)]):
        if time.monotonic() > end:
            raise RankLostError("it didn't come")
        time.sleep(0.1)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    _collective(dist.init_process_group, backend, store=group, rank=rank, world_size=size, timeout=PATIENCE)
    return Ranks(rank, size, int(os.environ["LOCAL_RANK"]), store)


def _collective(call: Callable, *arguments: object, **settings: object) -> object:
    """What a call returns that needs all ranks."""
    try:
        return call(*arguments, **settings)
    except RuntimeError as error:
        if translate(error) or "CUDA error" in str(error):  # this rank's own
            raise
        raise RankLostError(error) from None


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """Gradients of one type together, in a few large messages instead of many small ones."""
    bucket: list[Tensor] = []
    filled = 0
    for gradient in gradients:
        if bucket and (filled + gradient.numel() > BUCKET or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, filled = [], 0
        bucket.append(gradient)
        filled += gradient.numel()
    if bucket:
        yield bucket
