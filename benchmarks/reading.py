"""Reading and writing NIfTI files: this package against nibabel, MONAI and SimpleITK, in one run, on made volumes.

    python benchmarks/reading.py [--repeats 3] [--folder FOLDER] [--only read,headers,write,peak]

Prints one JSON object per call: seconds (the best of the repeats; calls take turns, so that a busy machine slows all of
them), and how many times longer it takes than ours. Every result is checked to be equal. The files are in the page
cache: what is measured is the processor's work.

- read: a CT of 512x512x300, int16, gzip level 6. "floor" is ISA-L into an int16 buffer, its checksum verified, without
  any conversion: nothing that uses ISA-L can be faster. "two at once": two threads read a file each; in
  the seconds of one reading where the machine has two free cores.
- headers: grids of 1000 small files.
- write: a label map of 512x512x300, uint8, .nii.gz. Ours is synced to the disk, read back and verified; the others'
  are not.
- peak: memory above that of the process before the call, MiB, each in a process of its own (not on Windows).
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from isal import igzip
from scipy import ndimage

from pipeline.geometry import Grid
from pipeline.io import read_header, read_volume, write_volume

SHAPE = (512, 512, 300)
GRID = Grid(SHAPE, np.diag([0.8, 0.8, 1.0, 1.0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the made files are kept from run to run")
    parser.add_argument("--only", default="read,headers,write,peak")
    parser.add_argument("--call", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.call:
        print_peak(arguments.call, arguments.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        make(folder)
        parts = {"read": compare_reading, "headers": compare_headers, "write": compare_writing, "peak": compare_peaks}
        for part in arguments.only.split(","):
            parts[part](folder, arguments.repeats)


def make(folder: Path) -> None:
    """A CT of smooth organs with noise, its organs as labels, and a thousand small volumes."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "small").is_dir():
        return
    random = np.random.default_rng(0)
    smooth = ndimage.zoom(random.normal(size=(16, 16, 10)).astype(np.float32), (32, 32, 30), order=1) * 120 + 40
    x, y = np.meshgrid(np.linspace(-1, 1, SHAPE[0]), np.linspace(-1, 1, SHAPE[1]), indexing="ij")
    body = ((x / 0.8) ** 2 + (y / 0.6) ** 2 < 1)[..., None]
    noise = random.normal(size=SHAPE).astype(np.float32)
    ct = np.where(body, smooth + 12 * noise, -1000 + 4 * noise).round().astype(np.int16)
    np.save(folder / "ct.npy", np.asfortranarray(ct))
    np.save(folder / "labels.npy", (np.digitize(smooth, [-100, 0, 60, 150, 250]) * body).astype(np.uint8))
    write_volume(folder / "ct.nii", ct, GRID)
    for name in ("ct.nii.gz", "ct_again.nii.gz"):
        (folder / name).write_bytes(gzip.compress((folder / "ct.nii").read_bytes(), 6))
    small = folder / "unfinished"
    for i in range(1000):
        write_volume(
            small / f"{i:04d}.nii.gz", ct[100:150, 100:150, i % 250 : i % 250 + 40], Grid((50, 50, 40), np.eye(4))
        )
    small.rename(folder / "small")


# Each returns the array (H, W, D).


def ours_float32(path: Path) -> np.ndarray:
    return read_volume(path).array


def ours_int16(path: Path) -> np.ndarray:
    return read_volume(path, np.int16).array


def floor(path: Path) -> np.ndarray:
    with igzip.open(path, "rb") as stream:
        stream.read(352)
        array = np.empty(int(np.prod(SHAPE)), np.int16)
        view, done = array.view(np.uint8).data, 0
        while count := stream.readinto(view[done : done + (8 << 20)]):  # type: ignore[union-attr]
            done += count
        stream.read(1)  # checksum and length
    return array.reshape(SHAPE, order="F")


def nibabel_fdata(path: Path) -> np.ndarray:
    return nibabel.load(path).get_fdata()


def nibabel_float32(path: Path) -> np.ndarray:
    return nibabel.load(path).get_fdata(dtype=np.float32)


def simpleitk(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T


def monai(path: Path) -> np.ndarray:
    from monai.transforms import LoadImaged

    return LoadImaged("image")({"image": path})["image"].numpy()


READERS = {
    "ours, float32": ours_float32,
    "ours, int16": ours_int16,
    "floor": floor,
    "nibabel get_fdata": nibabel_fdata,
    "nibabel get_fdata float32": nibabel_float32,
    "SimpleITK, int16": simpleitk,
    "MONAI LoadImaged": monai,
}


def compare_reading(folder: Path, repeats: int) -> None:
    path, ct = folder / "ct.nii.gz", np.load(folder / "ct.npy", mmap_mode="r")
    with ThreadPoolExecutor(2) as pool:
        both = [path, folder / "ct_again.nii.gz"]
        calls: dict[str, Callable[[], object]] = {
            name: lambda reader=reader: reader(path)
            for name, reader in READERS.items()  # type: ignore[misc]
        }
        calls["ours, float32, two at once"] = lambda: list(pool.map(ours_float32, both))
        report("read", calls, repeats, lambda arrays: all(np.array_equal(array, ct) for array in arrays))


def compare_headers(folder: Path, repeats: int) -> None:
    paths = sorted((folder / "small").iterdir())

    def nibabel_headers() -> list[np.ndarray]:
        return [nibabel.load(path).affine for path in paths]

    def simpleitk_headers() -> list[tuple[float, ...]]:
        reader, origins = sitk.ImageFileReader(), []
        for path in paths:
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
            origins.append(reader.GetOrigin())
        return origins

    def ours() -> list[np.ndarray]:
        return [read_header(path).grid.affine for path in paths]

    calls = {"ours": ours, "nibabel": nibabel_headers, "SimpleITK": simpleitk_headers}
    report("headers", calls, repeats, lambda found: len(found) == len(paths))
    if not np.array_equal(ours(), nibabel_headers()):
        raise SystemExit("other grids than nibabel's")


def compare_writing(folder: Path, repeats: int) -> None:
    labels = np.load(folder / "labels.npy")
    ct = np.ascontiguousarray(np.load(folder / "ct.npy"))
    outputs = {name: folder / f"written_{name.replace(' ', '_')}.nii.gz" for name in ("ours", "nibabel", "SimpleITK")}

    def save_simpleitk(array: np.ndarray) -> None:
        image = sitk.GetImageFromArray(array.T)
        image.SetSpacing(GRID.spacing_mm)
        sitk.WriteImage(image, str(outputs["SimpleITK"]), useCompression=True)

    for kind, array in (("label map", labels), ("CT", ct)):
        calls = {
            "ours": lambda array=array: write_volume(outputs["ours"], array, GRID),
            "nibabel": lambda array=array: nibabel.Nifti1Image(array, GRID.affine).to_filename(outputs["nibabel"]),
            "SimpleITK": lambda array=array: save_simpleitk(array),
        }
        report(f"write {kind}", calls, 1 if kind == "CT" else repeats, files=outputs)
        for name, path in outputs.items():
            if not np.array_equal(read_volume(path, np.int16).array, array):
                raise SystemExit(f"{name} wrote other voxels")


def compare_peaks(folder: Path, repeats: int) -> None:
    for name in (*READERS, "ours, writing labels", "nibabel, writing labels"):
        command = [sys.executable, __file__, "--folder", str(folder), "--call", name]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="", flush=True)


def print_peak(name: str, folder: Path) -> None:
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    if "writing" in name:
        labels, path = np.load(folder / "labels.npy"), folder / "written.nii.gz"
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if name.startswith("ours"):
            write_volume(path, labels, GRID)
        else:
            nibabel.Nifti1Image(labels, GRID.affine).to_filename(path)
        size = 0.0
    else:
        if name != "floor":
            READERS[name](next((folder / "small").iterdir()))  # what it imports is not counted
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        size = READERS[name](folder / "ct.nii.gz").nbytes / 2**20
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit
    print(json.dumps({"part": "peak", "call": name, "result_mib": round(size), "peak_mib": round(peak)}))


def report(
    part: str,
    calls: dict[str, Callable[[], object]],
    repeats: int,
    right: Callable[[list], bool] = lambda result: True,
    files: dict[str, Path] | None = None,
) -> None:
    """Time the calls in turn; ``right`` judges the list of results of each first call."""
    best = dict.fromkeys(calls, float("inf"))
    for repeat in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            result = call()
            best[name] = min(best[name], time.perf_counter() - start)
            if repeat == 0 and not right(result if isinstance(result, list) else [result]):
                raise SystemExit(f"{part}: {name} gives something else")
            del result  # or the next call would find less memory free
    ours = next(iter(best.values()))
    for name, seconds in best.items():
        line: dict[str, object] = {"part": part, "call": name, "s": round(seconds, 3)}
        line["ratio"] = round(seconds / ours, 2)
        if files:
            line["mib"] = round(files[name].stat().st_size / 2**20, 1)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
