"""Run by test_case_measures under torchrun: evaluates five cases on the ranks there are; each writes what it sees."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from monai.data import DataLoader, MetaTensor
from monai.engines import SupervisedEvaluator
from torch.utils.data.distributed import DistributedSampler

from pipeline.handlers import CaseMeasures, InstanceScores


def cases() -> list[dict]:
    """Five cases; case i misses i of the five voxels of its lesion, so their Dice differ."""
    affine = torch.diag(torch.tensor([1.0, 2.0, 5.0, 1.0], dtype=torch.float64))
    items = []
    for i in range(5):
        label, image = torch.zeros(1, 6, 4, 2), torch.zeros(1, 6, 4, 2)
        label[0, :5, 1, 1] = 1
        image[0, : 5 - i, 1, 1] = 1
        meta = {"case_id": f"case-{i}"}
        items.append({"image": image, "label": MetaTensor(label, affine=affine, meta=meta)})
    return items


def main(output_dir: Path) -> None:
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    metric = CaseMeasures({"1": "lesion"}, output_dir=output_dir)
    instances = InstanceScores()
    data = cases()
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(data, batch_size=1, sampler=DistributedSampler(data, shuffle=False)),
        network=torch.nn.Identity(),
        key_val_metric={"dice": metric},
        additional_metrics={"instances": instances},
    )
    evaluator.run()
    seen = len(metric._rows_by_case)
    dice = {row.case_id: row.result.dice for row in metric.rows}
    matched = {case_id: scores.mean_matched_iou for case_id, scores in instances.scores.items()}
    report = {"seen": seen, "dice": dice, "metrics": evaluator.state.metrics, "matched_iou": matched}
    (output_dir / f"rank-{dist.get_rank()}.json").write_text(json.dumps(report), encoding="utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
