"""Run by test_cohort_killed under torchrun: predicts the cases in FOLDER/scans into FOLDER/out; each process says in
FOLDER/NAME-RANK.json what it knows of it. With a case's id behind, the process that gets it is killed there."""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from monai.transforms import Compose, Orientationd

from pipeline.engines.cohort_turns import turns
from pipeline.transforms import LoadImageStackd
from tests.engines.small_cohort import Sign, predict


def main(folder: Path, name: str, victim: str | None = None) -> None:
    torch.set_num_threads(1)
    processes, network = turns(), Sign()

    def at(item: dict) -> dict:
        if item["case_id"] == victim:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    if victim is not None:  # none is to have taken all cases before the other has started
        network.register_forward_pre_hook(lambda *_: network.calls or processes.agree(None))
    paths = sorted((folder / "scans").iterdir())
    items = [{"case_id": path.name.split(".")[0], "relative": ".", "image": {"ct": str(path)}} for path in paths]
    chain = [at, LoadImageStackd("image", channels=["ct"]), Orientationd("image", axcodes="RAS", labels=None)]
    result = predict(items, folder / "out", network, processes=processes, preprocessing=Compose(chain))
    report = {
        "cases": [outcome.case for outcome in result.outcomes],
        "kept": sorted(outcome.case for outcome in result.outcomes if outcome.kept),
        "counts": result.counts,
        "calls": network.calls,
    }
    (folder / f"{name}-{processes.rank}.json").write_text(json.dumps(report), encoding="utf-8")
    processes.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
