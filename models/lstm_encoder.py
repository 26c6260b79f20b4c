"""sLSTM (section 3.2 of the paper): one sequence of frames -> one vector."""

import torch
from torch import Tensor, nn

from models.batch import Frames


class LSTMEncoder(nn.Module):
    """An LSTM's last hidden state, through dropout and a linear layer (which the released code adds)."""

    def __init__(self, width: int, hidden_size: int, out_size: int, layers: int, dropout: float):
        super().__init__()
        between_layers = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(width, hidden_size, num_layers=layers, dropout=between_layers, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden_size, out_size)

    def forward(self, frames: Frames) -> Tensor:
        """B sequences -> (B, out_size)."""
        # On a GPU autocast would run an LSTM in float16, whose range is too small, whatever it was asked for: so in float32.
        with torch.autocast("cuda", enabled=False):
            states = self._last_states(frames)
        return self.linear(self.dropout(states))

    def _last_states(self, frames: Frames) -> Tensor:
        """(B, hidden_size): each sequence's state after its last frame.

        An LSTM never looks ahead, so frames that are padded behind a sequence's last one can't change its state there, and
        its run can be interrupted: at each stretch's end the sequences that are over leave, and the longer ones go on from
        their states. Exact, and on a CPU much faster than `pack_padded_sequence`, whose backward fills a whole gradient at
        every time step.
        """
        state = None
        last_states = []  # of the sequences that end in each stretch, the shortest first
        for start, end, sequences, going_on in frames.stretches:
            running = frames.values[:sequences, start:end]
            states, state = self.lstm(running, state)  # (sequences, end - start, hidden_size)
            last_real = frames.lengths[going_on:sequences] - 1 - start
            over = torch.arange(going_on, sequences, device=last_real.device)
            last_states.append(states[over, last_real])
            state = tuple(part[:, :going_on].contiguous() for part in state)
        return torch.cat(last_states[::-1])[frames.inverse_order]
