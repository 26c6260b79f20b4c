"""sLSTM (section 3.2 of the paper): encodes a sequence of frames as one vector."""

import torch
from torch import Tensor, nn

from models.batch import Frames


class LSTMEncoder(nn.Module):
    """An LSTM's last hidden state, followed by dropout and a linear layer (an addition of the released code)."""

    def __init__(self, width: int, hidden_size: int, out_size: int, layers: int, dropout: float):
        super().__init__()
        between_layers = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(width, hidden_size, num_layers=layers, dropout=between_layers, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden_size, out_size)

    def forward(self, frames: Frames) -> Tensor:
        """B sequences -> (B, out_size)."""
        # On a GPU, autocast runs LSTMs in float16 whatever the requested type, and its range is too small: use float32.
        with torch.autocast("cuda", enabled=False):
            states = self._last_states(frames)
        return self.linear(self.dropout(states))

    def _last_states(self, frames: Frames) -> Tensor:
        """(B, hidden_size): each sequence's hidden state after its last frame.

        An LSTM never looks ahead, so padding cannot change that state, and a run can be split in time: after a stretch
        the finished sequences drop out, and the longer ones continue from their states. This is exact and, on a CPU,
        much faster than `pack_padded_sequence`, whose backward fills a full-size gradient at every time step.
        """
        state, start, running = None, 0, len(frames.values)
        last_states = []  # of the sequences that end in each stretch, shortest first
        for end, continuing in frames.stretches.items():
            values = frames.values[:running, start:end].to(self.linear.weight.dtype)
            states, state = self.lstm(values, state)  # (running, end - start, hidden_size)
            last_real = frames.lengths[continuing:running] - 1 - start
            finished = torch.arange(continuing, running, device=last_real.device)
            last_states.append(states[finished, last_real])
            state = tuple(part[:, :continuing].contiguous() for part in state)
            start, running = end, continuing
        return torch.cat(last_states[::-1])[frames.inverse_order]
