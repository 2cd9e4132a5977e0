"""No error of a run is swallowed."""

from __future__ import annotations

from collections.abc import Mapping

from ignite.engine import Engine

from pipeline.data.case_error import case_error, failing_step


def raise_again(engine: Engine, error: BaseException) -> None:
    """The last listener to ``Events.EXCEPTION_RAISED``: as soon as any handler listens, Ignite itself goes on silently.

    What a transform of the post-processing raised comes out with case and transform. An engine that has this listener
    says so by ``raises_again``: handlers that listen to errors leave the raising to it.
    """
    step, _ = failing_step(error)
    if not step:
        raise error
    items = engine.state.batch if isinstance(engine.state.batch, list) else [engine.state.batch]
    ids = [item["case_id"] for item in items if isinstance(item, Mapping) and "case_id" in item]
    named = ", ".join(case if isinstance(case, str) else ", ".join(case) for case in ids)
    raise case_error(error, {"case_id": named} if named else {}) from error
