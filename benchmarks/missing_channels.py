"""How well runs do without one of their channels: Dice with all of them, and with each one missing.

    python benchmarks/missing_channels.py RUN [RUN...] --data DATASET [--part all]

One row per run and missing channel. A missing channel is 0 everywhere after normalisation: what
`pipeline.networks.MultiEncoderUNet` takes for a modality that was not acquired, and the nearest thing to no information
for a network of one encoder. Cases are those that the weights have not seen, or with ``--part all`` all of them (a test
dataset). Dice is the mean over the cases that hold a lesion, of the first class; false alarms are cases without one in
which the network shows one.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from pipeline.bundle import find_bundle, resolve
from pipeline.data import data_list
from pipeline.engines import with_weights
from pipeline.metrics import measure_case


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--part", default="unseen", choices=("unseen", "all"))
    arguments = parser.parse_args()

    print(f"{'run':24}{'missing':>10}{'Dice':>8}{'N':>5}{'missed':>8}{'false alarms':>14}")
    for run in arguments.runs:
        folder = find_bundle(run)
        config = resolve(folder, "evaluate") | {"bundle_root": str(folder)}
        content = ConfigParser(config)
        network = with_weights(
            content.get_parsed_content("network_def"), str(folder / "models" / "model.pt"), torch.device("cpu")
        )
        prepare = content.get_parsed_content("validate#preprocessing")
        inferer = content.get_parsed_content("validate#inferer")
        restore = content.get_parsed_content("validate#postprocessing")
        items = data_list(
            arguments.data,
            config["channels"],
            arguments.part,
            split_file=folder / "models" / "split.json",
            require_label=True,
        )
        cases = [prepare(dict(item)) for item in items]
        class_id = min(config["classes"])
        for missing in (None, *range(len(config["channels"]))):
            results = []
            for case in cases:
                image: MetaTensor = case["image"].clone()
                if missing is not None:
                    image[missing] = 0
                logits = inferer(image.as_tensor()[None], network)[0]
                found = restore(dict(case) | {"image": image, "pred": logits})["pred"]
                spacing_mm = found.pixdim.tolist()
                results += measure_case(found[0], case["label"][0], spacing_mm, {class_id: config["classes"][class_id]})
            with_lesion = [result for result in results if result.status in ("ok", "missed")]
            print(
                f"{folder.name:24}{'none' if missing is None else config['channels'][missing]:>10}"
                f"{statistics.mean(result.dice for result in with_lesion):8.3f}{len(with_lesion):5}"
                f"{sum(result.status == 'missed' for result in results):8}"
                f"{sum(result.status == 'false_alarm' for result in results):14}",
                flush=True,
            )


if __name__ == "__main__":
    main()
