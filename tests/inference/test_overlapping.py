"""Regions that overlap go with some settings only."""

import pytest
import torch
from monai.transforms import Compose

from pipeline.engines import Evaluator
from pipeline.engines.cohort_case import CasePredictor
from pipeline.errors import ConfigError
from pipeline.inference import Ensemble, Restored, SlidingWindowInferer

CPU = torch.device("cpu")
NETWORK = torch.nn.Conv3d(1, 2, 1)


@pytest.mark.parametrize(
    ("settings", "network", "fix"),
    [
        ({"average": "probabilities"}, NETWORK, "average=logits"),
        ({}, Ensemble([NETWORK, NETWORK], "probabilities"), "average=logits"),
        ({"background": 0.05}, NETWORK, "skip_background=null"),
        ({"runtime": "auto"}, NETWORK, "runtime=float32"),
        ({"runtime": "auto", "background": 0.0}, NETWORK, "skip_background=null runtime=float32"),
        ({}, NETWORK, None),
        ({"runtime": "float32"}, Ensemble([NETWORK, NETWORK]), None),
    ],
)
def test_what_takes_classes_to_exclude_each_other_is_refused(settings, network, fix):
    inferer = SlidingWindowInferer(8, **settings)
    for regions in ((1, 2), None):
        steps = Compose([Restored("pred", regions=regions)])
        for make in (
            lambda steps=steps: CasePredictor(network, inferer, steps, CPU),
            lambda steps=steps: Evaluator(CPU, [], network, inferer=inferer, postprocessing=steps),
        ):
            if fix is None or regions is None:
                make()
            else:
                with pytest.raises(ConfigError) as raised:
                    make()
                assert raised.value.fix == fix
