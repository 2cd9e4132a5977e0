"""The data doctor: this package against nnU-Net's fingerprint extraction and a loop with nibabel, on the same cases.

    python benchmarks/check.py hippocampus mri --nnunet /path/to/environment/bin [--jobs 2]

Prints one JSON object per way: seconds, cases per second, and how many times longer it takes than this package. All are
whole commands from a cold start, imports included. `pipeline check` reads and verifies every voxel and judges the
dataset; ``again`` is the same once more, with what it kept; ``headers`` is what `pipeline train` does before it begins.
`nnUNetv2_extract_fingerprint` reads every case and keeps shapes, spacings and foreground intensities; its raw folder is
made of links. The loop loads image and label with nibabel and takes the same statistics with numpy, in one process.
Decathlon folders (dataset.json) of one channel only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline.data import Case, find_cases

NIBABEL_LOOP = """
import sys, nibabel, numpy
for line in sys.stdin:
    image, label = (nibabel.load(path) for path in line.rstrip("\\n").split("\\t"))
    values, ids = image.get_fdata(), label.get_fdata()
    every = values.min(), values.max(), values.mean(), values.std(), numpy.percentile(values, (0.5, 50, 99.5))
    inside = values[ids > 0]
    if inside.size:
        inside.mean(), inside.std(), numpy.percentile(inside, (0.5, 50, 99.5))
    numpy.unique(ids, return_counts=True)
"""
HEADERS = """
import sys
from pipeline.data import check_headers, find_cases
check_headers(find_cases(sys.argv[1], [sys.argv[2]]), [sys.argv[2]], on_refusal="report")
"""


def seconds(command: list[str], environment: dict[str, str], text: str | None = None) -> float:
    start = time.perf_counter()
    done = subprocess.run(
        command, env=os.environ | environment, input=text, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1):  # 1: the doctor refused cases
        raise SystemExit(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        )
    return time.perf_counter() - start


def nnunet_raw(root: Path, cases: list[Case], channel: str) -> dict[str, str]:
    """A raw dataset of links in nnU-Net's layout; the environment that names it."""
    raw = root / "raw" / "Dataset001_Check"
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True)
    for case in cases:
        assert case.label is not None
        (raw / "imagesTr" / f"{case.case_id}_0000.nii.gz").symlink_to(case.image[channel].resolve())
        (raw / "labelsTr" / f"{case.case_id}.nii.gz").symlink_to(case.label.resolve())
    content = {
        "channel_names": {"0": channel},
        "labels": {"background": 0, "one": 1, "two": 2},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(content))
    places = {name: str(root / name) for name in ("raw", "preprocessed", "results")}
    return {f"nnUNet_{name}": place for name, place in places.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("channel")
    parser.add_argument("--nnunet", help="bin folder of an environment with nnunetv2")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    cases = find_cases(arguments.dataset, [arguments.channel])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        kept = {"PIPELINE_CACHE": str(root / "cache")}
        check = [sys.executable, "-m", "pipeline", "check", arguments.dataset, "--jobs", str(arguments.jobs)]
        taken = {
            "pipeline check": seconds(check, kept),
            "pipeline check again": seconds(check, kept),
            "headers": seconds([sys.executable, "-c", HEADERS, arguments.dataset, arguments.channel], kept),
        }
        files = "".join(f"{case.image[arguments.channel]}\t{case.label}\n" for case in cases)
        taken["nibabel loop"] = seconds([sys.executable, "-c", NIBABEL_LOOP], {}, files)
        if arguments.nnunet:
            command = [f"{arguments.nnunet}/nnUNetv2_extract_fingerprint", "-d", "1", "-np", str(arguments.jobs)]
            taken["nnU-Net fingerprint"] = seconds(command, nnunet_raw(root, cases, arguments.channel))
    for name, time_s in taken.items():
        ratio = time_s / taken["pipeline check"]
        line = {"cases": len(cases), "way": name, "seconds": round(time_s, 2)}
        print(json.dumps(line | {"cases_per_s": round(len(cases) / time_s, 1), "times_ours": round(ratio, 2)}))


if __name__ == "__main__":
    main()
