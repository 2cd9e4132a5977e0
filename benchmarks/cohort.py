"""A cohort with corrupt cases against plain MONAI on the good ones alone; and a command that is killed again and again.

    python benchmarks/cohort.py [--cases 200] [--corrupt 10] [--folder DIR]
    python benchmarks/cohort.py --kills 20 [--cases 12]

The first makes phantoms (or finds those of an earlier call in DIR), spoils some in ten ways, and predicts them by
`pipeline predict`'s own function; then MONAI's SupervisedEvaluator predicts the good ones: the same weights, the same
preparation, windows and overlap, MONAI's SlidingWindowInferer, Invertd of the logits, AsDiscreted and SaveImaged, once
with its cases loaded in the evaluator's own process and once by a worker (``num_workers=1``). Each runs in a process of
its own, start-up not counted. Prints a JSON line for each: seconds, peak memory, cases, ``ratio`` = seconds / ours, and
the share of voxels whose label is ours; then how the cases ended, by status. Fails where a corrupt case was done, or a
good one was not.

The second starts `pipeline predict` and kills it (SIGKILL) at seeded random moments between its first case and its end,
looks at every file that has a final name, and lets the same command finish. Prints a JSON line per kill, and fails
where a file was partial or a case was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BUNDLE = "stroke_perfusion_segmentation"
OVERRIDES = ("minimum_component_ml=0.0", "device#name=cpu", "flip_axes=[]")  # what MONAI's chain has no counterpart for


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def with_nan(file: Path) -> None:
    import nibabel
    import numpy as np

    image = nibabel.load(file)
    voxels = np.asarray(image.dataobj, dtype=np.float32).copy()
    voxels[0, 0, 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine), file)


def elsewhere(file: Path) -> None:
    import nibabel
    import numpy as np

    image = nibabel.load(file)
    affine = image.affine.copy()
    affine[:3, 3] += 1000
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), affine), file)


def constant(file: Path) -> None:
    import nibabel
    import numpy as np

    image = nibabel.load(file)
    nibabel.save(nibabel.Nifti1Image(np.full(image.shape, 7, np.float32), image.affine), file)


SPOILS: tuple[Callable[[Path], Any], ...] = (
    cut,
    flip_a_bit,
    with_nan,
    elsewhere,
    constant,
    lambda file: file.write_bytes(b""),
    lambda file: file.write_bytes(b"<html>not found</html>"),
    lambda file: file.write_bytes(b"\x1f\x8b" + bytes(100)),
    lambda file: file.unlink(),
    lambda file: (file.unlink(), file.mkdir()),
)


def phantoms(folder: Path, cases: int) -> Path:
    from pipeline.data.phantom_dataset import write_dataset

    data = folder / f"phantoms-{cases}"
    if not data.is_dir():
        write_dataset(folder / "making", cases, seed=1)
        (folder / "making").rename(data)
    return data


def ours(scans: Path, out: Path) -> dict[str, Any]:
    import monai.bundle  # noqa: F401 - the start-up

    import pipeline.engines.cohort
    import pipeline.inference
    import pipeline.transforms  # noqa: F401
    from pipeline.bundle.run import predict

    began = time.perf_counter()
    result = predict(BUNDLE, scans, out, overrides=OVERRIDES)
    return {"seconds": time.perf_counter() - began, "cases": len(result.outcomes), "counts": result.counts}


def monai_evaluator(scans: Path, out: Path, workers: int) -> dict[str, Any]:
    from monai.data import DataLoader, Dataset
    from monai.engines import SupervisedEvaluator
    from monai.handlers import from_engine  # noqa: F401 - what a script of MONAI's imports, in the start-up
    from monai.inferers import SlidingWindowInferer
    from monai.transforms import AsDiscreted, Compose, Invertd, SaveImaged

    from pipeline.bundle.inference import Inference, run_section

    inference = Inference(BUNDLE, overrides=OVERRIDES, values={"dataset_dir": str(scans)})
    run_section(inference.parser, "initialize")  # memory kept, for both
    began = time.perf_counter()
    prepare, device = inference["preprocessing"], inference["device"]
    after = [
        Invertd("pred", transform=prepare, orig_keys="image", nearest_interp=False, to_tensor=True),
        AsDiscreted("pred", argmax=True),
        SaveImaged(
            "pred", output_dir=str(out), output_postfix="", separate_folder=False, resample=False, print_log=False
        ),
    ]
    loader = DataLoader(Dataset(inference["dataset#data"], prepare), batch_size=1, num_workers=workers)
    evaluator = SupervisedEvaluator(
        device=device,
        val_data_loader=loader,
        network=inference["network"],
        inferer=SlidingWindowInferer(inference.config["patch_size"], 1, inference.config["overlap"], mode="gaussian"),
        postprocessing=Compose(after),
    )
    evaluator.run()
    return {"seconds": time.perf_counter() - began, "cases": len(loader.dataset)}


def measured(kind: str, scans: Path, out: Path, workers: int = 0) -> dict[str, Any]:
    """One of the two in a process of its own."""
    words = [sys.executable, __file__, "--measure", kind, str(scans), str(out), str(workers)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def agreement(ours_dir: Path, theirs_dir: Path, cases: list[str]) -> float:
    import nibabel
    import numpy as np

    shares = []
    for case in cases:
        own = np.asarray(nibabel.load(ours_dir / case / f"{case}.nii.gz").dataobj)
        theirs = np.asarray(nibabel.load(theirs_dir / f"{case}_cbf.nii.gz").dataobj).reshape(own.shape)
        shares.append(float((own == theirs).mean()))
    return sum(shares) / len(shares)


def compare(folder: Path, cases: int, corrupt: int) -> None:
    data = phantoms(folder, cases)
    scans, good = folder / "scans", folder / "good"
    for copy in (scans, good):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(data, copy)
    names = sorted(path.name for path in data.iterdir() if path.is_dir())
    spoiled = names[:: max(1, len(names) // max(1, corrupt))][:corrupt]
    for number, name in enumerate(spoiled):
        SPOILS[number % len(SPOILS)](scans / name / f"{name}_cbv.nii.gz")
        shutil.rmtree(good / name)
    sound = [name for name in names if name not in spoiled]
    rows = {}
    runs = [("pipeline predict", "ours", scans, 0), ("MONAI evaluator", "monai", good, 0)]
    runs += [("MONAI evaluator, a worker", "monai", good, 1)]
    for name, kind, source, workers in runs:
        out = folder / f"out-{kind}-{workers}"
        shutil.rmtree(out, ignore_errors=True)
        rows[name] = measured(kind, source, out, workers)
        rows[name] |= {"ratio": round(rows[name]["seconds"] / rows["pipeline predict"]["seconds"], 3)}
        if kind == "monai":
            rows[name] |= {"same_labels": round(agreement(folder / "out-ours-0", out, sound), 6)}
        print(json.dumps({"run": name, **rows[name]}), flush=True)
    table = json.loads((folder / "out-ours-0" / "predictions.json").read_text(encoding="utf-8"))
    ended = {case["case"]: case["status"] for case in table["cases"]}
    print(json.dumps({"table": table["counts"], "spoiled": {name: ended[name] for name in spoiled}}))
    if any(ended[name] == "done" for name in spoiled) or any(ended[name] != "done" for name in sound):
        raise SystemExit("a corrupt case was done, or a good one was not")


def kill(folder: Path, cases: int, kills: int, seed: int) -> None:
    data, out = phantoms(folder, cases), folder / "killed"
    words = [sys.executable, "-m", "pipeline", "predict", BUNDLE, str(data), str(out), *OVERRIDES]
    randoms = random.Random(seed)

    def start() -> subprocess.Popen:
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def begun(process: subprocess.Popen) -> None:
        while not (out / "predictions.0.jsonl").exists() and process.poll() is None:
            time.sleep(0.005)

    shutil.rmtree(out, ignore_errors=True)
    process = start()
    begun(process)
    began = time.perf_counter()
    if process.wait():
        raise SystemExit("the run without a kill has failed")
    lasts_s = time.perf_counter() - began
    whole = {path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*.nii.gz"))}
    lost = partial = 0
    for number in range(kills):
        shutil.rmtree(out)
        process = start()
        begun(process)
        after_s = randoms.uniform(0, lasts_s)
        time.sleep(after_s)
        process.kill()
        killed = process.wait() != 0
        found = {p.relative_to(out): p.read_bytes() for p in out.rglob("*.nii.gz") if not p.name.startswith(".")}
        wrong = [str(name) for name, content in found.items() if content != whole.get(name)]
        again = start().wait()
        table = json.loads((out / "predictions.json").read_text(encoding="utf-8"))
        after = {path.relative_to(out): path.read_bytes() for path in out.rglob("*.nii.gz")}
        missing = [str(name) for name, content in whole.items() if after.get(name) != content]
        kept = sum(case["kept"] for case in table["cases"])
        row = {"kill": number, "killed": killed, "after_s": round(after_s, 2), "results_there": len(found)}
        row |= {"kept": kept, "redone": len(whole) - kept, "partial": wrong, "lost": missing, "status_again": again}
        print(json.dumps(row), flush=True)
        partial, lost = partial + len(wrong), lost + len(missing)
    print(json.dumps({"kills": kills, "partial": partial, "lost": lost}))
    if partial or lost:
        raise SystemExit("a file was partial, or a case was lost")


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        kind, scans, out, workers = sys.argv[2:]
        row = ours(Path(scans), Path(out)) if kind == "ours" else monai_evaluator(Path(scans), Path(out), int(workers))
        row["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        row["seconds"] = round(row["seconds"], 2)
        print(json.dumps(row))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int)
    parser.add_argument("--corrupt", type=int, default=10)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    os.environ["PYTHONWARNINGS"] = "ignore"
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if options.kills:
            kill(folder, options.cases or 12, options.kills, options.seed)
        else:
            compare(folder, options.cases or 200, options.corrupt)


if __name__ == "__main__":
    main()
