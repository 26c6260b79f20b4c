"""Stops training at a non-finite loss, gradient or label, or when a class has lost all its clips."""

import torch
from torch import Tensor, nn

from models.ulgm import ULGM
from utils.errors import DivergedError

MAX_LISTED = 10  # clips in a message


class FiniteCheck:
    """Raises DivergedError for a bad window; on a GPU one window later, so that the check never waits for the GPU."""

    def __init__(self, ids: list[str], ulgm: ULGM):
        """ids: of all training clips, for error messages."""
        self._ids, self._ulgm = ids, ulgm
        # Of the last window: epoch, clips, losses, gradient norm, verdict and, on a GPU, the event that marks its arrival.
        self._unread: tuple[int, Tensor, Tensor, Tensor, Tensor, torch.cuda.Event | None] | None = None

    def inspect(self, epoch: int, clips: Tensor, losses: Tensor, model: nn.Module) -> None:
        """Checks a window before its gradients are cleared. clips, losses: (B,)."""
        self.raise_if_broken()  # on a GPU, by the previous window's verdict
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)  # (), non-finite if any gradient is
        intact = torch.isfinite(losses).all() & torch.isfinite(norm) & self._ulgm.is_intact(clips)
        verdict = intact.to("cpu", non_blocking=True)  # () bool
        arrived = torch.cuda.Event() if clips.device.type == "cuda" else None
        self._unread = epoch, clips, losses, norm, verdict, arrived
        if arrived is None:
            self.raise_if_broken()
        else:
            arrived.record()

    def raise_if_broken(self) -> None:
        """Reads the last verdict, waiting for it if necessary. Raises DivergedError if it is bad."""
        if self._unread is None:
            return
        (epoch, clips, losses, norm, verdict, arrived), self._unread = self._unread, None
        if arrived is not None:
            arrived.synchronize()
        if verdict.numpy():
            return
        if (broken := ~torch.isfinite(losses)).any() or not torch.isfinite(norm):
            what, where = ("loss", clips[broken]) if broken.any() else ("gradient", clips)
            names = ", ".join(self._ids[clip] for clip in where[:MAX_LISTED].tolist())
            more = f" and {len(where) - MAX_LISTED} more" if len(where) > MAX_LISTED else ""
            raise DivergedError(f"epoch {epoch}: non-finite {what} at {names}{more}: try a lower learning rate")
        self._ulgm.check(epoch)
