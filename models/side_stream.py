"""A GPU does several things at once if they are given to it on several streams."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from utils.batch import Frames


def start_beside(encoder: nn.Module, frames: Frames, number: int) -> Callable[[], Tensor]:
    """Starts an encoder beside what follows; returns a function that waits for its output and gives it.

    An LSTM is a long chain of small steps, which leave most of a GPU idle: BERT can run meanwhile. Backward then runs on the
    same streams by itself. On a CPU the encoder runs at once. number: of the stream.
    """
    device = frames.values.device
    if device.type != "cuda":
        output = encoder(frames)
        return lambda: output

    main, side = torch.cuda.current_stream(device), _side_stream(device, number)
    side.wait_stream(main)  # which makes the frames
    with torch.cuda.stream(side):
        output = encoder(frames)
    # Memory is given out anew in the order of the stream that it came from, unless other users are known.
    for tensor in (frames.values, frames.lengths, frames.ranks):
        tensor.record_stream(side)

    def finished() -> Tensor:
        main.wait_stream(side)
        output.record_stream(main)
        return output

    return finished


@functools.cache
def _side_stream(device: torch.device, number: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
