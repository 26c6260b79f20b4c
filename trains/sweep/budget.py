"""Which trials of a sweep count, so that exactly as many are finished as were asked for, whoever runs or dies.

A budget of 50 trials is 50 slots. A trial opens a slot; where it breaks off, because its worker is killed or stopped, the
slot is kept, and another trial repeats it there. Workers agree without talking to each other: they read the same list of
trials, to which a storage only ever appends, and see the same first 50 slots in it, and in each slot the same holder, who
alone may run. So two workers that begin the last trial at once both find out, before they train, whose it is.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

# Attributes of a trial.
REPEATS = "repeats"  # the number of the trial that opened its slot
WITHDRAWN = "withdrawn"  # why it was given up before it began; it counts as if it had never been there
BEGUN = "begun"  # by which worker
STOPPED = "stopped"  # by a signal to its worker
RESULT = "result"  # what it came to: see Sweep._train

ATTEMPTS = 4  # after so many that nobody stopped and that broke off, a slot is closed: other values take their turn
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass
class Slot:
    """One slot of the budget."""

    number: int  # of the trial that opened it
    trials: list[FrozenTrial]  # that trial and its repetitions, in order

    @property
    def holder(self) -> FrozenTrial | None:
        """Who may run, runs or is finished; None where all attempts broke off."""
        return next((trial for trial in self.trials if trial.state != TrialState.FAIL), None)

    @property
    def failures(self) -> int:
        """How many broke off without anyone's will."""
        return sum(trial.state == TrialState.FAIL and STOPPED not in trial.user_attrs for trial in self.trials)

    @property
    def is_finished(self) -> bool:
        return self.holder is not None and self.holder.state in FINISHED

    @property
    def is_waiting(self) -> bool:
        """For a worker to take it up."""
        return self.holder is None or self.holder.state == TrialState.WAITING

    def is_held_by(self, number: int) -> bool:
        return self.holder is not None and self.holder.number == number

    @property
    def params(self) -> dict[str, object]:
        """The hyper-parameters that it is about, as far as they were drawn."""
        return max((trial.params for trial in self.trials), key=len)


def slots(trials: Iterable[FrozenTrial]) -> list[Slot]:
    """The slots in the order of their numbers, but for those that are closed. trials: all of a study, in order."""
    found: dict[int, Slot] = {}
    for trial in trials:
        if WITHDRAWN not in trial.user_attrs:
            number = trial.user_attrs.get(REPEATS, trial.number)
            slot = found.setdefault(number, Slot(number, []))
            if slot.failures < ATTEMPTS:  # a further trial changes nothing any more
                slot.trials.append(trial)
    return [slot for slot in found.values() if slot.holder is not None or slot.failures < ATTEMPTS]
