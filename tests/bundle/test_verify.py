from __future__ import annotations

import json

import pytest
import torch

from pipeline.bundle import build
from pipeline.bundle.verify import verify

# Ignite's own import, on torch >= 2.13.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


@pytest.fixture
def built(bundle, configs):
    build(bundle, configs=configs)
    return bundle


def change(file, path, value):
    config = json.loads(file.read_text())
    *keys, last = path.split("#")
    inner = config
    for key in keys:
        inner = inner[key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    file.write_text(json.dumps(config))


def test_a_bundle_in_order(built, configs, monkeypatch):
    from monai.bundle import workflows

    said = []
    monkeypatch.setattr(workflows.logger, "callHandlers", said.append)
    assert verify(built, configs=configs) == []
    assert said == []
    workflows.logger.warning("what else it warns of is said")
    assert len(said) == 1


def test_missing_files_and_code_come_first(built, configs):
    (built / "LICENSE").unlink()
    (built / "configs" / "evaluate.json").unlink()
    (built / "run.py").touch()
    assert verify(built, configs=configs) == [
        "LICENSE is missing",
        "configs/evaluate.json is missing",
        "run.py: a bundle ships no code",
    ]


def test_a_run_needs_neither_licences_nor_docs(built, configs):
    for name in ("LICENSE", "docs/README.md", "docs/data_license.txt"):
        (built / name).unlink()
    (built / "run.json").write_text("{}")
    assert verify(built, configs=configs) == []


def test_stale_files(built, configs, delta):
    delta("train#steps#scale#maxv: 2.0")
    problems = verify(built, configs=configs)
    assert len(problems) == 1
    assert "stale train.json, multi_gpu_train.json" in problems[0]


IMAGE, PRED = "network_data_format#inputs#image", "network_data_format#outputs#pred"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("authors", None, "'authors' is a required property"),
        ("version", "0.3.0", "0.3.0 is not in the changelog"),
        ("schema", "https://example.org/meta_schema_20220324.json", "expected the URL of meta_schema_20240725.json"),
        (IMAGE, None, "has no 'image'"),
        (f"{IMAGE}#num_channels", "2", "is not of type 'integer'"),
        (f"{IMAGE}#num_channels", 3, "channel_def names 0, 1; expected 0 to 3 - 1"),
        (f"{IMAGE}#spatial_shape", ["n+8", 8, 8], r"expected numbers or 'k\*n'"),
        (f"{IMAGE}#channel_def", {"0": "mtt", "1": "cbf"}, r"the configs say \['cbf', 'mtt'\]"),
        (f"{PRED}#channel_def", {"0": "background", "1": "tumour"}, "the configs say .*'1': 'lesion'"),
        (f"{IMAGE}#spatial_shape", ["2*n", "2*n", "2*n"], "does not take 2 channels of 2x2x2"),
        ("task", "$import os", "plain text: MONAI parses metadata"),
    ],
)
def test_metadata(built, configs, path, value, message):
    change(built / "configs" / "metadata.json", path, value)
    problems = verify(built, configs=configs)
    assert problems
    assert all(problem.startswith(("metadata.json: ", "configs/metadata.json: ")) for problem in problems)
    with pytest.raises(ValueError, match=message):
        raise ValueError("\n".join(problems))


def test_channels_of_the_network_against_the_metadata(built, configs):
    metadata = built / "configs" / "metadata.json"
    names = {"0": "a", "1": "b", "2": "c"}
    change(metadata, f"{IMAGE}#num_channels", 3)
    change(metadata, f"{IMAGE}#channel_def", names)
    change(metadata, f"{PRED}#num_channels", 3)
    change(metadata, f"{PRED}#channel_def", names)
    problems = "\n".join(verify(built, configs=configs))
    assert "does not take 3 channels of 8x8x8" in problems
    change(metadata, f"{IMAGE}#num_channels", 2)
    change(metadata, f"{IMAGE}#channel_def", {"0": "cbf", "1": "mtt"})
    assert "num_channels 3; network_def gives 2" in "\n".join(verify(built, configs=configs))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("inferer#overlapp", 0.5, "inferer: monai.inferers.SlidingWindowInferer takes no 'overlapp'"),
        ("inferer#roi_size", None, "inferer: monai.inferers.SlidingWindowInferer needs 'roi_size'"),
        ("inferer#mode", "triangular", "can't be constructed"),
        ("dataset_dir", None, "dataset_dir is missing, which MONAI requires as property 'dataset_dir'"),
        ("evaluator#val_handlers", [], "evaluator#val_handlers must be the reference @handlers"),
    ],
)
def test_generated_files_of_a_foreign_bundle(built, path, value, message):
    (built / "configs" / "bundle.yaml").unlink()
    change(built / "configs" / "inference.json", path, value)
    assert [problem for problem in verify(built) if message in problem]


def test_weights(built, configs):
    from monai.networks.nets import UNet

    (built / "models").mkdir()
    network = UNet(spatial_dims=3, in_channels=2, out_channels=2, channels=[4, 8, 8], strides=[2, 2], num_res_units=1)
    torch.save(network.state_dict(), built / "models" / "model.pt")
    assert verify(built, configs=configs) == []
    torch.save(network, built / "models" / "model.pt")
    assert "models/model.pt: no state dict" in verify(built, configs=configs)[0]
    torch.save({"weight": torch.zeros(1)}, built / "models" / "model.pt")
    assert "models/model.pt: no state dict" in verify(built, configs=configs)[0]


def test_large_files_are_listed(built, configs):
    (built / "models").mkdir()
    with open(built / "models" / "model.onnx", "wb") as file:
        file.truncate(26 * 2**20)
    assert verify(built, configs=configs) == ["models/model.onnx: 26 MiB; list it in large_files.yml with its sha256"]
    (built / "large_files.yml").write_text("large_files:\n- path: models/model.onnx\n  hash_val: 0\n")
    assert verify(built, configs=configs) == []
