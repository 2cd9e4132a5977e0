"""No error of a run is swallowed."""

from __future__ import annotations

from ignite.engine import Engine


def raise_again(engine: Engine, error: BaseException) -> None:
    """The last listener to ``Events.EXCEPTION_RAISED``: as soon as any handler listens, Ignite itself goes on silently.

    An engine that has it says so by ``raises_again``: handlers that listen to errors leave the raising to it.
    """
    raise error
