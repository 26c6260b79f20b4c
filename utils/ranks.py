"""Data-parallel training by torchrun: each rank has the whole model and all labels, and runs its share of a window."""

import contextlib
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from utils.device import known_gpus
from utils.errors import DivergedError, UserError, first_line, translate
from utils.signals import Stopped

JOIN_TIMEOUT = timedelta(minutes=2)  # gloo waits five times as long
TIMEOUT = timedelta(minutes=30)  # for a silent rank: rank 0 alone converts feature files, and tests
SILENCE = 60  # seconds; for a machine that doesn't answer, not for a silent rank
LOST = "another rank of this run is gone ({}); --resume continues from the last saved state, with any number of ranks"
UNREACHABLE = "ranks can't reach each other ({}); set GLOO_SOCKET_IFNAME to the network interface, on each machine"
Rows = dict[str, Tensor]


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together. A single process has everything as its share."""

    rank: int = 0  # rank 0 writes the results and the log
    size: int = 1
    local_rank: int = 0  # among the ranks on this machine
    store: dist.Store | None = None

    def share(self, clips: int) -> tuple[int, int]:
        """The range [start, end) of a window's clips that this rank runs. Ranks in order cover all clips once."""
        return self.rank * clips // self.size, (self.rank + 1) * clips // self.size

    def combine(self, features: Rows, losses: Tensor, parameters: Iterable[Tensor], clips: int) -> tuple[Rows, Tensor]:
        """Turns each rank's share of a window into the whole window, bit-identical on all ranks.

        So all take the same step and generate the same labels. features, losses: task -> (share, D), (share,); returned
        for all the window's clips. Sums gradients in place.
        """
        if self.size == 1:
            return features, losses
        rows = self.gather(features | {"": losses}, clips)
        if gradients := [parameter.grad for parameter in parameters if parameter.grad is not None]:
            flat = parameters_to_vector(gradients)
            _collective(dist.all_reduce, flat)
            vector_to_parameters(flat, gradients)
        return rows, rows.pop("")

    @torch.no_grad()
    def gather(self, rows: Rows, clips: int) -> Rows:
        """name -> (share, ...), this rank's rows -> name -> (clips, ...), those of all ranks."""
        if self.size == 1:
            return rows
        start, end = self.share(clips)
        whole = {}
        for name, own_rows in rows.items():
            whole[name] = own_rows.new_zeros(clips, *own_rows.shape[1:])
            whole[name][start:end] = own_rows[: end - start]
            _collective(dist.all_reduce, whole[name])  # each row is zero on all ranks but one
        return whole

    def all_reduce_max(self, number: int) -> int:
        """The maximum over ranks. Doesn't synchronise with a GPU."""
        if self.size == 1:
            return number
        value = torch.tensor(number)
        _collective(dist.all_reduce, value, dist.ReduceOp.MAX)
        return int(value)

    def broadcast_object(self, value: object = None) -> object:
        """Rank 0's value, on every rank."""
        values = [value]
        if self.size > 1:
            _collective(dist.broadcast_object_list, values, src=0, device=torch.device("cpu"))
        return values[0]

    def broadcast_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Overwrites tensors with rank 0's values."""
        for tensor in tensors if self.size > 1 else ():
            _collective(dist.broadcast, tensor, src=0)

    def seed_dropout(self, *numbers: int) -> None:
        """Gives each rank its own dropout stream. It depends on these numbers and the rank only, so none of it is saved."""
        if self.size > 1:
            torch.manual_seed(int(np.random.SeedSequence([*numbers, self.rank]).generate_state(1)[0]))

    def rank_zero_first(self, call: Callable[[], object]) -> object:
        """Runs a call that makes files on each machine's first rank, then on the others, which find the files made."""
        for is_its_turn in (self.local_rank == 0, self.local_rank > 0):
            if is_its_turn:
                result = call()
            self.all_reduce_max(0)
        return result

    def check_equal(self, **values: object) -> None:
        """Raises UserError on ranks with other values than rank 0: they would train nonsense, or wait forever."""
        expected = self.broadcast_object(values)
        if different := [name for name in values if values[name] != expected[name]]:
            listed = "; ".join(f"{name} {values[name]} instead of {expected[name]}" for name in different)
            raise UserError(f"rank {self.rank} differs from rank 0 ({listed}): start all with the same flags and files")
        self.all_reduce_max(0)

    def close(self) -> None:
        if self.size > 1:
            dist.destroy_process_group()

    @contextlib.contextmanager
    def one_rank_reports(self) -> Iterator[None]:
        """Lets one rank report why the run ends early; the others exit silently."""
        try:
            yield
        except Exception as error:
            all_diverge = isinstance(error, DivergedError)
            if translate(error) and (all_diverge and self.rank > 0 or not self._claims_the_report()):
                raise SystemExit(2) from None
            raise
        except Stopped as stop:
            if self.rank > 0:
                raise SystemExit(stop.status) from None
            self._claims_the_report()  # else another rank would report this one as lost
            raise

    def _claims_the_report(self) -> bool:
        try:
            return self.store is None or self.store.add("reported", 1) == 1
        except RuntimeError:  # the store died with the first machine: several reports are better than none
            return True

    def choose_gpus(self, gpu_ids: Sequence[int] | None) -> Sequence[int] | None:
        """--gpu_ids for this rank: one of the listed GPUs. Raises UserError if there are too few."""
        gpus = known_gpus(gpu_ids)
        if self.size == 1:
            return gpu_ids
        if gpus and self.local_rank >= len(gpus):
            problem = f"torchrun started more ranks on this machine than it has GPUs for them ({len(gpus)})"
            raise UserError(f"{problem}: lower --nproc_per_node, or run on the CPU with --gpu_ids -1")
        return [gpus[self.local_rank]] if gpus else [-1]


ALONE = Ranks()


def join_ranks() -> Ranks:
    """Joins the other ranks if torchrun started this process. Raises UserError if they don't come."""
    if not {"RANK", "LOCAL_RANK", "MASTER_ADDR"} <= os.environ.keys() or os.environ.get("WORLD_SIZE", "1") == "1":
        return ALONE
    store, rank, size = _collective(next, rendezvous("env://"))
    settings = {"store": dist.PrefixStore("group", store), "rank": rank, "world_size": size, "timeout": JOIN_TIMEOUT}
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    _collective(dist.init_process_group, backend, message=UNREACHABLE, **settings)
    dist.distributed_c10d._set_pg_timeout(TIMEOUT)
    # Lets Linux close connections to a machine that doesn't answer, those of gloo and of the store.
    for file in filter(Path.is_socket, Path("/proc/self/fd").glob("*")):  # torch keeps its sockets to itself
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(file.name))) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENCE // 3)  # OSError: not TCP
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, SILENCE // 3)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return Ranks(rank, size, int(os.environ["LOCAL_RANK"]), store)


def _collective(call: Callable, *arguments: object, message: str = LOST, **settings: object) -> object:
    """Runs a call that needs all ranks. Raises UserError if one of them is gone."""
    try:
        return call(*arguments, **settings)
    except RuntimeError as error:
        if translate(error) or "CUDA error" in str(error):  # this rank's own failure
            raise
        reason = str(error).split("] ")[-1].split(". This is typically")[0]  # gloo adds its source line and guesses
        raise UserError(message.format(first_line(reason))) from None
