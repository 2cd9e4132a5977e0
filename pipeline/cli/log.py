"""What the rooms below have to say while a command runs, on the terminal."""

from __future__ import annotations

import logging
import os


class _AboveBars(logging.Handler):
    """Writes a line above whatever progress bar is on the screen."""

    def emit(self, record: logging.LogRecord) -> None:
        import sys

        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


def first_process() -> bool:
    """Whether this is the only process of a run, or the first that ``torchrun`` has started."""
    return os.environ.get("RANK", "0") == "0"


def show_log() -> None:
    """Show this package's messages from INFO on, and none of Ignite's: it announces the errors that are shown here.

    Of several processes that ``torchrun`` has started, the first speaks for all, but for errors.
    """
    logger = logging.getLogger("pipeline")
    if not logger.handlers:
        handler = _AboveBars()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO if first_process() else logging.ERROR)
    logging.getLogger("ignite").setLevel(logging.CRITICAL)
