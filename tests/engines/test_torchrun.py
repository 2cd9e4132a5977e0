"""Joining and leaving the other processes of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.engines import join
from pipeline.errors import ConfigError
from tests.commands import python

ONE_PROCESS = """
import os
import ignite.distributed as idist
import torch
from pipeline.engines import distributed, join, leave

def talking():
    names = [open(f"/proc/self/task/{thread}/comm").read().strip() for thread in os.listdir("/proc/self/task")]
    return sum("gloo" in name for name in names)

join()
network = distributed(torch.nn.Linear(4, 4), torch.device("cpu"))
network(torch.ones(2, 4)).sum().backward()
assert idist.all_gather("case") == ["case"]
assert talking() > 0
leave()
print("threads left:", talking())
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads' names are read from /proc")
def test_no_thread_is_left_that_could_end_a_closing_process():
    environment = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    assert "threads left: 0" in python("-c", ONE_PROCESS, **environment).stdout


def test_a_process_that_torchrun_did_not_start_is_told_how(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match="torchrun"):
        join()
