"""Sees to it that losses, gradients and labels stay finite numbers, and that no class loses all its clips."""

import torch
from torch import Tensor, nn

from models.ulgm import ULGM
from utils.errors import DivergedError

MOST_NAMED = 10  # clips in a message


class FiniteCheck:
    """Looks at every window. A GPU's answer is read while it computes the next window, so that nothing waits for it."""

    def __init__(self, ids: list[str], ulgm: ULGM):
        """ids: of all training clips, for messages."""
        self._ids, self._ulgm = ids, ulgm
        # Of the last window: what `inspect` was given, the gradient's norm, and on a GPU the event that tells when the answer is there.
        self._seen: tuple[int, Tensor, Tensor, Tensor, torch.cuda.Event | None] | None = None
        self._is_intact: Tensor | None = None  # () bool in the CPU's memory, the answer

    def inspect(self, epoch: int, clips: Tensor, losses: Tensor, model: nn.Module) -> None:
        """clips, losses: (B,), of a window whose gradients are still there.

        Raises DivergedError where one of its numbers (on a GPU: of the window before) isn't finite, or a class has no clip left.
        """
        on_gpu = clips.device.type == "cuda"
        if on_gpu:
            self.raise_if_broken()
        norm = gradient_norm(model)
        intact = torch.isfinite(losses).all() & torch.isfinite(norm) & self._ulgm.is_intact(clips)
        self._is_intact, arrived = intact.to("cpu", non_blocking=True), torch.cuda.Event() if on_gpu else None
        self._seen = epoch, clips, losses, norm, arrived
        if on_gpu:
            arrived.record()
        else:
            self.raise_if_broken()

    def raise_if_broken(self) -> None:
        """Reads the last answer, and waits for it where it must."""
        if self._seen is None:
            return
        (epoch, clips, losses, norm, arrived), self._seen = self._seen, None
        if arrived is not None:
            arrived.synchronize()
        if self._is_intact.numpy():
            return
        broken = ~torch.isfinite(losses)
        if broken.any() or not torch.isfinite(norm):
            what, where = ("loss", clips[broken]) if broken.any() else ("gradient", clips)
            names = ", ".join(self._ids[clip] for clip in where[:MOST_NAMED].tolist())
            more = f" and {len(where) - MOST_NAMED} more" if len(where) > MOST_NAMED else ""
            raise DivergedError(
                f"epoch {epoch}: the {what} is no number any more, at {names}{more}: try a lower learning rate"
            )
        self._ulgm.check(epoch)


def gradient_norm(model: nn.Module) -> Tensor:
    """() over all parameters: not finite where one of the gradients isn't."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)
