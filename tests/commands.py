"""Python processes as a user starts them, each forked from one that has imported torch and MONAI already.

A process that starts from nothing imports them for seconds, a fork begins where the imports have ended. Everything
else is its own: variables, words, output, exit status, what it leaves in memory.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import connection, forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest import mock

PRELOADED = ["monai.bundle", "numba", "torch._dynamo", "pipeline.bundle.run", "pipeline.engines.cohort"]
PRELOADED += ["pipeline.engines", "pipeline.handlers", "pipeline.transforms", "pipeline.networks", "pipeline.cli.main"]
ONE_THREAD = {"OMP_NUM_THREADS": "1"}

Word = str | Path


def command(*words: Word, status: int = 0, **environment: str) -> subprocess.CompletedProcess:
    """Runs a module as ``python -m`` does; its output is shown where the exit status is not the expected one."""
    return python("-m", *words, status=status, **environment)


def python(*words: Word, status: int = 0, **environment: str) -> subprocess.CompletedProcess:
    """Runs ``-m MODULE``, ``-c CODE`` or a script.

    Args:
        words: as behind ``python``.
        status: that it has to end with; that of a signal is negative.
        environment: variables beside, or instead of, those of this process.
    """
    if not hasattr(os, "fork"):  # Windows
        return fresh_python(*words, status=status, **environment)
    [done] = _side_by_side(words, [environment])
    return _ended(done, status)


def fresh_python(*words: Word, status: int = 0, **environment: str) -> subprocess.CompletedProcess:
    """The same by an interpreter that starts from nothing."""
    call = [sys.executable, *map(str, words)]
    variables = os.environ | ONE_THREAD | environment
    return _ended(subprocess.run(call, capture_output=True, text=True, env=variables, check=False), status)


def ranks(number: int, *words: Word, fails: bool = False, **environment: str) -> list[subprocess.CompletedProcess]:
    """Runs the same words in several processes that find each other by torchrun's variables. As with torchrun, the
    others are ended where one fails; ``fails`` says whether that is expected."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": str(port)} | environment
    done = _side_by_side(words, [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(number)])
    if fails:
        assert any(process.returncode for process in done)
    else:
        for process in done:
            _ended(process, 0)
    return done


def at_once(number: int, *words: Word) -> list[subprocess.CompletedProcess]:
    """Runs the same words in several processes that know nothing of each other."""
    return [_ended(done, 0) for done in _side_by_side(words, [{}] * number)]


def _ended(done: subprocess.CompletedProcess, status: int) -> subprocess.CompletedProcess:
    assert done.returncode == status, f"exit {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
    return done


def _side_by_side(words: Sequence[Word], environments: Sequence[dict[str, str]]) -> list[subprocess.CompletedProcess]:
    """One process per environment; the others are ended where one fails."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with mock.patch.dict(os.environ, ONE_THREAD):  # OpenMP looks at it when it is loaded
        forkserver.ensure_running()
    processes: dict[int, BaseProcess] = {}
    outputs = []
    with ThreadPoolExecutor(2 * len(environments)) as readers:
        for variables in environments:
            ends = [context.Pipe(duplex=False) for _ in ("out", "err")]
            to_write = [end for _, end in ends]
            process = context.Process(target=_run, args=([*map(str, words)], {**os.environ, **variables}, *to_write))
            process.start()
            for end in to_write:
                end.close()  # so that reading ends with the process
            processes[process.sentinel] = process
            outputs.append([readers.submit(_read, end) for end, _ in ends])
        running = dict(processes)
        while running:
            for sentinel in connection.wait(list(running)):
                ended = running.pop(sentinel)
                ended.join()
                if ended.exitcode:
                    for other in running.values():
                        other.terminate()
        said = [[reading.result().decode() for reading in streams] for streams in outputs]
    return [
        subprocess.CompletedProcess(list(words), process.exitcode, *texts)
        for process, texts in zip(processes.values(), said, strict=True)
    ]


def _read(end: connection.Connection) -> bytes:
    with open(os.dup(end.fileno()), "rb") as stream, end:
        return stream.read()


def _run(words: list[str], environment: dict[str, str], *outputs: connection.Connection) -> None:
    """In the new process, what the interpreter does with these words."""
    for number, output in enumerate(outputs, start=1):
        os.dup2(output.fileno(), number)
        output.close()
    # As they are in an interpreter that starts: these would still take what they write to for what it was before.
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.environ.clear()
    os.environ.update(environment | ONE_THREAD)
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        elif words[0] == "-c":
            sys.argv = ["-c", *words[2:]]
            exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        sys.exit(1)
    finally:
        atexit._run_exitfuncs()  # a forked process ends without
