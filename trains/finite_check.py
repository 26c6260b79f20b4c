"""Sees to it that losses, gradients and labels stay numbers."""

import torch
from torch import Tensor, nn

from models.ulgm import ULGM
from utils.errors import DivergedError

NAMED = 10  # clips that a complaint names at most


class Watch:
    """Looks at every window. A GPU's answer is read while it computes the next window, so that nothing waits for it."""

    def __init__(self, ids: list[str], ulgm: ULGM):
        """ids: of all training clips, for complaints."""
        self._ids, self._ulgm = ids, ulgm
        self._answer: Tensor | None = None  # () bool in the CPU's memory; None: nothing to read

    def look(self, epoch: int, clips: Tensor, losses: Tensor, model: nn.Module) -> None:
        """clips, losses: (B,), of a window whose gradients are still there.

        Raises DivergedError where one of its numbers (on a GPU: of the window before) isn't finite, or a class has no clip left.
        """
        on_gpu = clips.device.type == "cuda"
        if on_gpu:
            self.raise_if_broken()
        norm = gradient_norm(model)
        sound = torch.isfinite(losses).all() & torch.isfinite(norm) & self._ulgm.is_sound(clips)
        self._seen = epoch, clips, losses, norm
        self._answer = sound.to("cpu", non_blocking=True)
        if on_gpu:
            self._arrived = torch.cuda.Event()
            self._arrived.record()
        else:
            self.raise_if_broken()

    def raise_if_broken(self) -> None:
        """Reads the last answer, and waits for it where it must."""
        answer, self._answer = self._answer, None
        if answer is None:
            return
        epoch, clips, losses, norm = self._seen
        if clips.device.type == "cuda":
            self._arrived.synchronize()
        if answer.numpy():
            return
        broken = ~torch.isfinite(losses)
        if broken.any() or not torch.isfinite(norm):
            what, where = ("loss", clips[broken]) if broken.any() else ("gradient", clips)
            names = ", ".join(self._ids[clip] for clip in where[:NAMED].tolist())
            more = f" and {len(where) - NAMED} more" if len(where) > NAMED else ""
            raise DivergedError(
                f"epoch {epoch}: the {what} is no number any more, at {names}{more}: try a lower learning rate"
            )
        self._ulgm.check(epoch)


def gradient_norm(model: nn.Module) -> Tensor:
    """() over all parameters: not finite where one of the gradients isn't."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)
