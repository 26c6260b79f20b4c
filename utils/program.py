"""What a program on the command line owes to who calls it: one line for a mistake, and an exit status that tells."""

import os
import sys
import traceback
from collections.abc import Callable

from utils.functions import UserError
from utils.signals import Stopped, stop_signals


def run_program(work: Callable[[], int | None], once_stopped: str = "") -> int:
    """Calls the work. Returns the exit status: what it returns, or 0; 1 for a bug; 2 for UserError; 130 or 143 after a signal.

    once_stopped: what to tell who stopped it.
    """
    try:
        with stop_signals():
            return work() or 0
    except UserError as error:
        print("error:", error, file=sys.stderr)
        return 2
    except Stopped as stop:
        print("; ".join(filter(None, (f"stopped by {stop.name}", once_stopped))), file=sys.stderr)
        return stop.status
    except BrokenPipeError:  # nobody reads on, as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is yet to be flushed
        return 0
    except Exception:
        traceback.print_exc()
        return 1
