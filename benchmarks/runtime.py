"""What each way to run a network takes and costs, on a trained bundle's held-back cases, all in one run.

    python benchmarks/runtime.py BUNDLE DATASET [--cases 40] [--threads 1] [--only float32 openvino_int8 ...] [--monai]

The cases are those that the bundle's ``models/split.json`` holds back. Every runtime predicts every case, one runtime
after the other case by case, so that a machine that is busy or slows down does so for all of them; a case's first
prediction by a runtime is not timed (it compiles or converts). Prints one JSON line per runtime: seconds per case
(median over cases); ``speedup`` against float32 as it is and ``speedup_against_monai`` as that comes, each the median
of the cases' ratios; Dice of each class in the case's own space; the share of voxels with float32's label, and the Dice
of the foreground with it; ``start_s``, the first prediction with what it builds, and ``start_again_s``, the same with
what was built found on disk.

``--monai`` adds MONAI's SlidingWindowInferer twice: ``monai`` in this process, with the memory that it keeps
(`pipeline.engines.keep_freed_memory`), and ``monai_as_it_comes`` in a process of its own, without, and with torch's own
layers in place of this project's. It fills small images up with zeros where a bundle mirrors, so its Dice is another.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import torch
from inference import of_torchs_layers
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer as MonaiInferer

from pipeline.bundle import find_bundle, resolve
from pipeline.engines import keep_freed_memory
from pipeline.errors import PipelineError
from pipeline.inference import Runtime, SlidingWindowInferer
from pipeline.inference.runtime import NAMES
from pipeline.inference.runtime_agreement import agreement, labels_of
from pipeline.inference.runtime_memory import machine
from pipeline.metrics import measure_case


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("dataset")
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=[*NAMES, "auto"])
    parser.add_argument("--monai", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    config, cases = _cases(options.bundle, options.dataset, options.cases)
    network = config.get_parsed_content("network")
    window, overlap = config.get_parsed_content("patch_size"), config.get_parsed_content("overlap")
    restore = config.get_parsed_content("validate#postprocessing")
    classes = config.get_parsed_content("classes")
    device = config.get_parsed_content("device")

    with tempfile.TemporaryDirectory() as cache:
        inferers, started = {"float32": SlidingWindowInferer(window, overlap=overlap)}, {}
        if options.monai:
            inferers["monai"] = MonaiInferer(window, 1, overlap, mode="gaussian")
            peer = of_torchs_layers(copy.deepcopy(network))
            inferers["monai_as_it_comes"] = Elsewhere(peer, window, overlap, options.threads)
        images = [case["image"].as_tensor()[None].to(device) for case in cases]
        for name in options.only:
            if name in inferers:
                continue
            seconds = []
            for _ in range(2):  # the second finds on disk what the first has built
                runtime = Runtime(
                    name, quantized=find_bundle(options.bundle) / "models", work=range(10_000), cache_dir=cache
                )
                inferers[name] = SlidingWindowInferer(window, overlap=overlap, runtime=runtime)
                began = time.perf_counter()
                try:
                    inferers[name](images[0], network)
                except PipelineError as error:
                    print(json.dumps({"runtime": name, "not_here": str(error)}), flush=True)
                    del inferers[name]
                    break
                seconds.append(round(time.perf_counter() - began, 2))
            if name in inferers:
                started[name] = seconds
        for inferer in inferers.values():
            inferer(images[0], network)
        rows = {name: [] for name in inferers}
        for case, image in zip(cases, images, strict=True):
            reference = None
            for name, inferer in inferers.items():
                began = time.perf_counter()
                with torch.no_grad():
                    logits = inferer(image, network)
                took = getattr(inferer, "seconds", None) or time.perf_counter() - began
                labels = labels_of(logits)
                reference = labels if reference is None else reference
                restored = restore({**case, "pred": MetaTensor(logits[0].cpu()).copy_meta_from(case["image"])})
                spacing = restored["pred"].pixdim.tolist()
                found = measure_case(restored["pred"][0], case["label"][0], spacing, classes, 1.0)
                rows[name].append((took, agreement([labels], [reference]), [result.dice for result in found]))

    for name, row in rows.items():
        ratios = [plain[0] / own[0] for plain, own in zip(rows["float32"], row, strict=True)]
        dice = [statistics.fmean(values) for values in zip(*(own[2] for own in row), strict=True)]
        line = {
            "runtime": name,
            "seconds": round(statistics.median(own[0] for own in row), 4),
            "speedup": round(statistics.median(ratios), 2),
            "dice": {label: round(value, 4) for label, value in zip(classes.values(), dice, strict=True)},
            "label_agreement": round(statistics.fmean(own[1][0] for own in row), 6),
            "foreground_agreement": round(statistics.fmean(own[1][1] for own in row), 5),
            "cases": len(row),
        }
        if "monai_as_it_comes" in rows:
            peers = [peer[0] / own[0] for peer, own in zip(rows["monai_as_it_comes"], row, strict=True)]
            line["speedup_against_monai"] = round(statistics.median(peers), 2)
        if name in started:
            line |= {"start_s": started[name][0], "start_again_s": started[name][1]}
        if name == "auto":
            line["chose"] = inferers[name].runtime.record["runtime"]
        print(json.dumps(line), flush=True)
    print(json.dumps({"machine": machine(device), "load": Path("/proc/loadavg").read_text().split()[:3]}))


class Elsewhere:
    """MONAI's inferer in a process of its own, whose memory is as the system gives it; ``seconds`` of its last call."""

    def __init__(self, network: torch.nn.Module, window, overlap: float, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, network, window, overlap, threads), daemon=True)
        self.process.start()
        self.seconds = 0.0

    def __call__(self, image: torch.Tensor, network: torch.nn.Module) -> torch.Tensor:
        self.pipe.send(image.numpy())
        self.seconds, logits = self.pipe.recv()
        return torch.from_numpy(logits)


def _serve(pipe, network: torch.nn.Module, window, overlap: float, threads: int) -> None:
    torch.set_num_threads(threads)
    inferer = MonaiInferer(window, 1, overlap, mode="gaussian")
    with torch.no_grad():
        while True:
            try:
                image = torch.from_numpy(pipe.recv())
            except EOFError:  # the benchmark has ended
                return
            began = time.perf_counter()
            logits = inferer(image, network)
            pipe.send((time.perf_counter() - began, logits.numpy()))


def _cases(bundle: str, dataset: str, number: int):
    """The bundle's evaluation, and its prepared held-back cases with their labels."""
    folder = find_bundle(bundle)
    config = resolve(folder, "evaluate", overrides=["part=validate"])
    config |= {"bundle_root": str(folder), "dataset_dir": str(Path(dataset).resolve())}
    parser = ConfigParser(config)
    parser.parse()
    data = parser.get_parsed_content("validate#dataset")
    return parser, [data[index] for index in range(min(number, len(data)))]


if __name__ == "__main__":
    main()
