"""Attacks on a config, and what a config of ours holds."""

from __future__ import annotations

import inspect
import json
import pydoc

import pytest

from pipeline.bundle import audit_bundle, audit_config, require_data_only
from pipeline.bundle.allowed_targets import ALLOWED_TARGETS, ROOMS
from pipeline.bundle import audit
from pipeline.bundle.signature import parameters
from pipeline.errors import BundleError

# Ignite's own import, on torch >= 2.13.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

HARMLESS = [
    "$@train#trainer.run()",
    "$@network.parameters()",
    "$@bundle_root + '/models'",
    "$@bundle_root + '/models' + '/model.pt'",
    "$@trainer.state.best_metric",
    "$[@a.run(), @b]",
    "@train::steps::crop",
    "@train#handlers#0",
    "mail@example.org",
    "100 %",
    "a $ inside",
    "-1",
]

ATTACKS = [
    "$import os",
    "$from os import system as s",
    "$__import__('os').system('id')",
    "$lambda: 0",
    "$(lambda x: x)(@a)",
    "$@a[0]",
    "$@a['b']",
    "$@a if @b else @c",
    "$[x for x in @a]",
    "$@a.run(1)",
    "$@a.run(x=1)",
    "$@a.run(*@b)",
    "$@a()",
    "$@a.__class__",
    "$@a.__init__.__globals__",
    "$@a._private",
    "$@a.__class__.__base__.__subclasses__()",
    "$@a.\uff3f\uff3fclass\uff3f\uff3f",  # fullwidth low lines: Python normalises them to underscores
    "$@a.run() or @b.run()",
    "$@a + @b",
    "$@a + 1",
    "$@a + f'{@b}'",
    "$@a + '@b'",  # MONAI substitutes inside the quotes, which ends the literal
    "$@a + '%b'",
    "$@a + 'x#y'",
    "$@a + b'/x'",
    "$'text'",
    "$1 + 1",
    "$print()",
    "$exit()",
    "$breakpoint()",
    "$open('/etc/passwd').read()",
    "$@a.parameters().gi_frame.f_builtins.clear()",
    "$@a.f_globals",
    "$@a # comment",
    "$@a; @b",
    "$@a\n@b",
    "$(x := @a)",
    "$reference_",
    "$reference_.run()",
    "$await @a",
    "$@a @ @b",
    "$" + "(" * 1000 + "@a" + ")" * 1000,
    "$@a" + ".b" * 5000,
    "$",
    "$@",
    "%other.yaml#network",
    "%network_def",
    "@#a",
    "@##train#x",
    "path/%#x",
    "@a.b",
    "@@train#steps",
    "@",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_data_passes_wherever_it_stands(text):
    assert audit_config({"key": text, "nested": [{"a": [text]}]}, "train.json") == []


@pytest.mark.parametrize("text", ATTACKS)
def test_code_is_refused_wherever_it_stands(text):
    config = {
        "top": text,
        "list": [1, [text]],
        "component": {"_target_": "monai.transforms.Compose", "transforms": text},
    }
    where = [problem.where for problem in audit_config(config, "train.json")]
    assert where == ["top", "list#1#0", "component#transforms"]
    with pytest.raises(BundleError, match="top: found"):
        require_data_only({"top": text}, "train.json")


def test_json_escapes_hide_nothing():
    config = json.loads(r'{"a": "\u0024import os", "b": {"_tar\u0067et_": "os.system", "command": "id"}}')
    assert [problem.where for problem in audit_config(config)] == ["a", "b#_target_"]


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "monai.utils.misc.os.system",
        "monai.transforms.compose.Compose",
        "monai.transforms.os.system",
        "monai.bundle.run",
        "monai.bundle.ConfigParser",
        "monai.transforms.LoadImaged",
        "monai.transforms.Lambdad",
        "monai.data.PersistentDataset",
        "monai.handlers.from_engine.__globals__",
        "pipeline.data.pathlib.os.system",
        "pipeline.data.cases.find_cases",
        "pipeline.bundle.build",
        "pipeline.cli.main",
        "pipeline.networks",
        "pipeline.networks.",
        "pipeline.networks.__init__",
        "pipeline.errors.ConfigError",
        "Compose",
        "torch.load",
        "torch.hub.load",
        "torch.optim",
        "torch.optim.lr_scheduler.types.FunctionType",
        "builtins.eval",
        "pydoc.pipepager",
        " monai.transforms.Compose",
        "monai.transforms.\uff23ompose",
        "$@a.run",
        "@network",
        "",
        None,
        ["monai.transforms.Compose"],
    ],
)
def test_a_target_that_is_no_public_name_is_refused(target):
    problems = audit_config({"a": [{"b": {"_target_": target}}]}, "train.json")
    assert [problem.where for problem in problems] == ["a#0#b#_target_"]


@pytest.mark.parametrize(
    "special",
    [
        {"_mode_": "debug"},
        {"_mode_": "@mode"},
        {"_mode_": ["callable"]},
        {"_debug_": True},  # monai.utils.instantiate stops in a debugger
        {"_import_": "os"},
        {"_meta_": {}},
        {"_base_": ["x.yaml"]},
        {"_replace_": True},
        {"_after_": "load"},
        {"_requires_": "$__import__('os').system('id')"},
        {"_disabled_": "$print()"},
        {"_desc_": "$import os"},
        {"+transforms": []},
        {"$a": 1},
        {"a#b": 1},
        {"a::b": 1},
        {1: 2},
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": b"bytes"},
        {"a": ("tuple",)},
    ],
)
def test_keys_and_values_beyond_data_are_refused(special):
    assert len(audit_config({"x": {"_target_": "monai.transforms.Compose", **special}}, "train.json")) == 1


def test_special_keys_of_a_component_that_are_data_pass():
    component = {"_target_": "monai.handlers.from_engine", "_desc_": "why", "_mode_": "callable", "_requires_": ["@a"]}
    assert audit_config({"x": {**component, "_disabled_": False}, "a": {"_desc_": "text"}}) == []
    assert len(audit_config({"x": {"_mode_": "callable"}})) == 1


def test_metadata_is_parsed_by_monai_and_so_must_be_plain(tmp_path):
    for value in ("$import os", "@x", "%file.json", {"_target_": "monai.transforms.Compose"}):
        assert audit_config({"task": [value]}, tmp_path / "metadata.json")
    assert audit_config({"channel_def": {"0": "ct"}, "authors": "a@b.org"}, tmp_path / "metadata.json") == []


def test_monai_would_have_run_what_is_refused(tmp_path):
    """The hole is real: MONAI runs an import that stands in metadata."""
    from monai.bundle import ConfigParser

    (tmp_path / "planted.py").write_text("import pathlib; pathlib.Path(__file__).with_suffix('.ran').touch()")
    parser = ConfigParser({"a": 1, "_meta_": {"task": "$import planted"}})
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        parser.get_parsed_content("a")
    assert (tmp_path / "planted.ran").exists()


def test_a_bundle_ships_no_code(bundle):
    assert audit_bundle(bundle) == []
    (bundle / "scripts").mkdir()
    (bundle / "scripts" / "__init__.py").touch()
    (bundle / "configs" / "logging.conf").touch()
    (bundle / "configs" / "extra.json").write_text('{"a": 1, "a": "$import os"}')
    (bundle / "configs" / "inference.json").write_text('{"a": "$import os"}')
    assert [problem.split(":")[0] for problem in audit_bundle(bundle)] == [
        "configs/logging.conf",
        "scripts/__init__.py",
        "configs/extra.json",
        "configs/inference.json",
    ]


@pytest.mark.parametrize("name", sorted(ALLOWED_TARGETS))
def test_every_allowed_name_is_a_class_or_function_of_that_package(name):
    parts = name.split(".")
    found = pydoc.locate(name)  # as MONAI finds it
    assert inspect.isclass(found) or inspect.isroutine(found)
    assert found.__module__.split(".")[0] == name.split(".")[0]
    named, required, _ = parameters(name)
    assert required <= named


def test_rooms_names_are_read_from_source_without_importing_it(monkeypatch, tmp_path):
    room = tmp_path / "pipeline" / "networks"
    room.mkdir(parents=True)
    (room / "__init__.py").write_text("raise RuntimeError('imported')\n__all__ = ['UNet']\n")
    monkeypatch.setattr(audit, "__file__", str(tmp_path / "pipeline" / "bundle" / "audit.py"))
    audit.public_names.cache_clear()
    try:
        assert audit.target_problem("pipeline.networks.UNet") is None
        assert audit.target_problem("pipeline.networks.UNett") == "a public name of pipeline.networks (nearest: UNet)"
        assert "allowed_targets.py" in audit.target_problem("pipeline.bundle.build")
    finally:
        audit.public_names.cache_clear()
