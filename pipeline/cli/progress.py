"""What a command shows while it works: numbered steps with their seconds, and a bar where the end is known."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer


@contextmanager
def counted(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is moved by ``callable(done, total)``; silent where the output is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(what), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


class Steps:
    """Announces the steps of a long command and how long each took.

    Args:
        total: number of steps.
    """

    def __init__(self, total: int) -> None:
        self.total, self.number = total, 0

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        self.number += 1
        typer.secho(f"[{self.number}/{self.total}] {title}", bold=True)
        start = time.perf_counter()
        yield
        typer.echo(f"      {time.perf_counter() - start:.0f} s")
