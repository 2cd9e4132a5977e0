"""How a network is run: the choice among means (against a clock of its own), each means against the network itself."""

import json
import sys

import pytest
import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.inference import Runtime, SlidingWindowInferer
from pipeline.inference.means import Means, in_batches_of, in_channels_last, torch_means
from pipeline.inference.openvino_runtime import has_openvino
from pipeline.inference.runtime import NAMES
from pipeline.inference.runtime_agreement import agreement, labels_of
from pipeline.inference.runtime_choice import Choice, Limits
from pipeline.inference.runtime_memory import RuntimeMemory, Trial, network_key
from pipeline.networks import UNet
from tests.commands import python

CPU = torch.device("cpu")
LIMITS = Limits(0.999, 0.98)
needs_openvino = pytest.mark.skipif(not has_openvino(), reason="the extra openvino is not installed")


def network(norm=None):
    torch.manual_seed(0)
    layers = [nn.Conv3d(2, 4, 3, padding=1), *([norm] if norm else []), nn.LeakyReLU(0.1), nn.Conv3d(4, 3, 1)]
    return nn.Sequential(*layers).eval()


def image(*size, seed=1):
    return torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(seed))


class Clocked(Choice):
    """A choice whose clock shows, for each means, what ``SECONDS`` says."""

    def __init__(self, *args, seconds, **kwargs):
        super().__init__(*args, **kwargs)
        self.seconds, self.timings = seconds, 0

    def _timed(self, run, batch):
        self.timings += 1
        return self.seconds[getattr(run, "name", "float32")], run(batch)


class Pretended:
    """What a means has loaded: the network's logits, changed as told."""

    def __init__(self, name, network, change):
        self.name, self.network, self.change = name, network, change

    def __call__(self, x):
        return self.change(self.network(x))


def pretend(name, change=lambda logits: logits, **kwargs):
    return Means(name, lambda network, window, folder: Pretended(name, network, change), **kwargs)


def clocked(cache, seconds, net=None, windows=2, limits=LIMITS):
    net = net or network()
    memory = RuntimeMemory(str(cache), net, image(8, 8, 8), CPU)
    return Clocked(net, image(8, 8, 8).expand(windows, -1, -1, -1, -1), 1, CPU, memory, limits, seconds=seconds)


def named(*means):
    return {one.name: one for one in (Means("float32", lambda network, window, folder: network), *means)}


def test_the_fastest_is_taken_and_of_two_that_are_alike_the_safer(tmp_path):
    seconds = {"float32": 1.0, "safe": 0.51, "quick": 0.5, "slow": 0.9}
    choice = clocked(tmp_path, seconds)
    assert choice.fastest(named(pretend("safe"), pretend("quick"), pretend("slow")), 1000) == "safe"
    seconds["safe"] = 0.6
    choice = clocked(tmp_path / "other", seconds)
    assert choice.fastest(named(pretend("safe"), pretend("quick"), pretend("slow")), 1000) == "quick"


def test_what_gives_other_labels_is_refused_however_fast(tmp_path):
    choice = clocked(tmp_path, {"float32": 1.0, "wrong": 0.01, "nan": 0.01, "right": 0.5})
    means = named(
        pretend("wrong", lambda logits: logits.flip(1)),
        pretend("nan", lambda logits: logits * float("nan")),
        pretend("right", lambda logits: logits * 2),
    )
    assert choice.fastest(means, 1000) == "right"
    assert "of the labels" in choice.trials["wrong"].refused
    assert choice.trials["nan"].agreement == 0
    assert choice.record("right", "", 1000)["trials"]["wrong"]["refused"] == choice.trials["wrong"].refused


def test_what_does_not_work_here_is_recorded_with_its_reason(tmp_path):
    def fails(network, window, folder):
        raise RuntimeError("no such instruction\nsecond line")

    choice = clocked(tmp_path, {"float32": 1.0})
    assert choice.fastest(named(Means("odd", fails)), 1000) == "float32"
    assert choice.trials["odd"].refused == "does not work here (RuntimeError: no such instruction)"


def test_the_network_itself_failing_is_an_error(tmp_path):
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        clocked(tmp_path, {"float32": 1.0}, Broken().eval()).fastest(named(), 10)


def test_what_can_not_pay_within_the_work_ahead_is_not_tried(tmp_path):
    built = []

    def build(network, window, folder):
        built.append(folder)

    means = named(pretend("compiled", build=build, artefact="compiled", build_s=60.0, any_size=False))
    seconds = {"float32": 1.0, "compiled": 0.5}
    choice = clocked(tmp_path, seconds)
    assert choice.fastest(means, 100) == "float32"  # 100 s in all, of which at most half may go into trying
    assert not built
    assert choice.record("float32", "", 100)["not_tried"] == {"compiled": "would not pay within 100 windows"}
    assert clocked(tmp_path, seconds).fastest(means, 200) == "compiled"
    assert len(built) == 1
    later = clocked(tmp_path, seconds)  # another process: neither timed nor built again, and now worth it at once
    assert later.fastest(means, 5) == "compiled"
    assert (later.timings, len(built)) == (0, 1)


def test_a_start_that_takes_longer_than_it_saves_is_not_made(tmp_path):
    means = named(pretend("quick", build=lambda *_: None, artefact="quick", any_size=False))
    choice = clocked(tmp_path, {"float32": 1.0, "quick": 0.5})
    assert choice.fastest(means, 1000) == "quick"
    trials = json.loads((choice.memory.folder / "trials.json").read_text())
    trials["trials"]["quick"]["start_s"] = 30.0
    (choice.memory.folder / "trials.json").write_text(json.dumps(trials))
    assert clocked(tmp_path, choice.seconds).fastest(means, 50) == "float32"
    assert clocked(tmp_path, choice.seconds).fastest(means, 100) == "quick"


def test_a_damaged_artefact_is_built_again_and_damaged_findings_are_found_again(tmp_path):
    def build(network, window, folder):
        (folder / "program").write_text("whole")

    def load(network, window, folder):
        if (folder / "program").read_text() != "whole":
            raise RuntimeError("damaged")
        return Pretended("built", network, lambda logits: logits)

    means = named(Means("built", load, build, "built", any_size=False))
    seconds = {"float32": 1.0, "built": 0.5}
    choice = clocked(tmp_path, seconds)
    choice.fastest(means, 1000)
    (choice.memory.folder / "built" / "program").write_text("half")
    (choice.memory.folder / "trials.json").write_text('{"trials": [')
    again = clocked(tmp_path, seconds)
    assert again.fastest(means, 1000) == "built"
    assert again.timings > 0
    assert (again.memory.folder / "built" / "program").read_text() == "whole"


def test_findings_hold_for_one_network_one_size_and_one_machine():
    net = network()
    key = network_key(net, (1, 2, 8, 8, 8), CPU)
    assert key == network_key(network(), (1, 2, 8, 8, 8), CPU)
    assert key != network_key(net, (1, 2, 8, 8, 16), CPU)
    net[1].negative_slope = 0.2
    assert key != network_key(net, (1, 2, 8, 8, 8), CPU)
    net[1].negative_slope = 0.1
    net[0].weight.data[0, 0, 0, 0, 0] += 1
    assert key != network_key(net, (1, 2, 8, 8, 8), CPU)


def test_what_is_known_of_one_int8_network_is_not_believed_of_the_next(tmp_path):
    def memory(**digests):
        return RuntimeMemory(str(tmp_path), network(), image(8, 8, 8), CPU, digests)

    memory(openvino_int8="first").keep({"float32": Trial(1.0), "openvino_int8": Trial(0.1)})
    assert set(memory(openvino_int8="first").trials()) == {"float32", "openvino_int8"}
    assert set(memory(openvino_int8="second").trials()) == {"float32"}
    assert set(memory().trials()) == {"float32"}


def test_the_folder_is_its_owners_alone_and_holds_a_bounded_number_of_networks(tmp_path):
    for seed in range(22):
        torch.manual_seed(seed)
        memory = RuntimeMemory(str(tmp_path), nn.Conv3d(2, 3, 1), image(8, 8, 8), CPU)
    assert memory.kept
    folders = list((tmp_path / "runtimes").iterdir())
    assert len(folders) == 20
    assert all(folder.stat().st_mode & 0o077 == 0 for folder in [tmp_path / "runtimes", *folders])
    assert not RuntimeMemory(None, nn.Conv3d(2, 3, 1), image(8, 8, 8), CPU).kept


def test_findings_of_another_process_are_judged_by_the_limits_of_this_one(tmp_path):
    def nearly(logits):
        other = logits.clone()
        other[..., 0] = logits.flip(1)[..., 0]  # in an eighth of the voxels
        return other

    means, seconds = named(pretend("nearly", nearly)), {"float32": 1.0, "nearly": 0.5}
    timings = []
    for limits, expected in ((Limits(0.5, 0.5), "nearly"), (LIMITS, "float32"), (Limits(0.5, 0.5), "nearly")):
        choice = clocked(tmp_path, seconds, limits=limits)
        assert choice.fastest(means, 1000) == expected
        assert bool(choice.trials["nearly"].refused) == (expected == "float32")
        timings.append(choice.timings)
    assert timings[1:] == [0, 0]


@pytest.mark.parametrize(
    "trials",
    [
        {"float32": {"seconds": None}},
        {"float32": {"seconds": "1"}},
        {"float32": {"seconds": float("nan")}},
        {"float32": {"seconds": 1.0, "refused": "slow"}},
        {"float32": {"seconds": 1.0, "agreement": 2}},
        {"other": {"seconds": 0.1}},
        {},
        [],
    ],
)
def test_findings_that_no_probe_makes_are_found_again_and_said(tmp_path, caplog, trials):
    memory = RuntimeMemory(str(tmp_path), network(), image(8, 8, 8), CPU)
    assert memory.trials() == {}
    assert not caplog.records
    (memory.folder / "trials.json").write_text(json.dumps({"trials": trials, "digests": {}}))
    choice = clocked(tmp_path, {"float32": 1.0, "safe": 0.5})
    assert "trials.json is damaged" in caplog.text
    assert choice.fastest(named(pretend("safe")), 1000) == "safe"
    assert set(memory.trials()) == {"float32", "safe"}


class Lesions(nn.Module):
    """Two classes: a voxel above 1 is a lesion."""

    def forward(self, x):
        return torch.cat([torch.ones_like(x), x], 1)


def of_these(monkeypatch, *means, seconds):
    """A runtime that knows only these means, by a clock of its own."""
    monkeypatch.setattr("pipeline.inference.runtime.torch_means", lambda device: list(named(*means).values()))
    monkeypatch.setattr("pipeline.inference.runtime.openvino_means", list)
    monkeypatch.setattr("pipeline.inference.runtime.Choice", lambda *args: Clocked(*args, seconds=seconds))


def test_what_rounds_waits_for_foreground_on_which_it_can_be_compared(tmp_path, monkeypatch):
    def blind(logits):
        return torch.stack([torch.ones_like(logits[:, 0]), torch.zeros_like(logits[:, 0])], 1)

    seconds = {"float32": 1.0, "float32+other": 0.8, "rounds": 0.5, "blind": 0.1}
    of_these(monkeypatch, pretend("float32+other"), pretend("rounds"), pretend("blind", blind), seconds=seconds)
    healthy = torch.rand(1, 1, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    ill = healthy.clone()
    ill[..., 12:14, 3:6, 3:6] += 1

    def run(runtime, net, *images):
        taken = []
        for x in images:
            assert torch.equal(SlidingWindowInferer(8, runtime=runtime)(x, net).argmax(1), (x[:, 0] > 1).long())
            taken.append(runtime.record["runtime"])
        return taken

    net = Lesions().eval()
    runtime = Runtime(work=range(50), cache_dir=str(tmp_path))
    assert run(runtime, net, healthy) == ["float32+other"]
    assert runtime.record["foreground_agreement"] is None
    assert runtime.record["not_tried"].keys() == {"rounds", "blind"}
    again = Runtime(work=range(50), cache_dir=str(tmp_path))  # the next process has not seen any, either
    assert run(again, net, healthy, healthy, ill, ill, healthy) == [*["float32+other"] * 3, *["rounds"] * 2]
    assert again.record["trials"]["blind"]["foreground"] == 0
    assert run(Runtime(work=range(50), cache_dir=str(tmp_path)), net, healthy) == ["rounds"]  # known from now on
    uncached = Runtime(work=range(50), cache_dir=None)
    assert run(uncached, net, healthy, ill, ill) == ["float32+other", "float32+other", "rounds"]


def test_where_a_chosen_means_overflows_float32_answers_and_it_is_said(monkeypatch, caplog):
    def overflows(logits):
        return logits.where(logits < 100, float("inf"))

    of_these(monkeypatch, pretend("rounds", overflows), seconds={"float32": 1.0, "rounds": 0.5})
    runtime, net = Runtime(work=range(50), cache_dir=None), Lesions().eval()
    x = torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(1)) + 1
    inferer = SlidingWindowInferer(8, runtime=runtime)
    inferer(x, net)
    assert runtime.record["runtime"] == "rounds"
    assert "float32_instead" not in runtime.record
    for times in (1, 2):
        assert torch.equal(inferer(x * 1000, net), net(x * 1000))
        assert runtime.record["float32_instead"] == times
    assert caplog.text.count("gives logits that are not finite") == 1


def test_agreement_by_hand():
    reference = labels_of(torch.tensor([[[1.0, 1, 0, 0, 0], [0, 0, 1, 1, 1]]]))
    labels = labels_of(torch.tensor([[[1.0, 0, 0, 0, 1], [0, 1, 1, 1, 0]]]))
    assert (reference.tolist(), labels.tolist()) == ([[0, 0, 1, 1, 1]], [[0, 1, 1, 1, 0]])
    assert agreement([labels], [reference]) == (3 / 5, 2 * 2 / 6)
    assert agreement([reference] * 2, [reference] * 2) == (1, 1)
    nothing = torch.zeros(1, 4)
    assert agreement([nothing], [nothing]) == (1, None)
    assert labels_of(torch.tensor([[[-1.0, 2]]])).tolist() == [[0, 1]]
    assert agreement([labels_of(torch.tensor([[[1.0, float("inf")], [0, 0]]]))], [reference]) == (0, 0)


def test_what_memory_did_not_suffice_for_is_tried_again_another_time(tmp_path):
    lacking = [True]

    def load(network, window, folder):
        if lacking:
            raise MemoryError
        return Pretended("large", network, lambda logits: logits)

    seconds = {"float32": 1.0, "large": 0.5}
    assert clocked(tmp_path, seconds).fastest(named(Means("large", load)), 1000) == "float32"
    lacking.clear()
    assert clocked(tmp_path, seconds).fastest(named(Means("large", load)), 1000) == "large"


@pytest.mark.parametrize(
    "norm", [nn.InstanceNorm3d(4), nn.InstanceNorm3d(4, affine=True), nn.InstanceNorm3d(4, track_running_stats=True)]
)
def test_channels_last_is_the_same_function_in_another_order(norm):
    net = network(norm)
    if norm.affine:
        nn.init.normal_(norm.weight)
    x = image(8, 9, 10)
    other = in_channels_last(net)
    torch.testing.assert_close(other(x), net(x), rtol=0, atol=1e-5)
    assert other[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert net[0].weight.is_contiguous()  # the caller's is as it was
    assert type(net[0]) is nn.Conv3d
    assert isinstance(other[1], nn.GroupNorm) == (not norm.track_running_stats)


def test_batches_of_one_size():
    seen = []

    def run(x):
        seen.append(len(x))
        return x * 2

    x = torch.arange(7.0)[:, None]
    assert torch.equal(in_batches_of(3, run)(x), x * 2)
    assert seen == [3, 3, 3]


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_every_means_of_torch_that_needs_no_compiler_does_what_the_network_does(spatial_dims, has_bfloat16):
    torch.manual_seed(0)
    net = UNet(spatial_dims, 2, 3, [4, 8], [3, 3], [1, 2]).eval()
    x = torch.randn(1, 2, *[8] * spatial_dims)
    with torch.no_grad():
        plain = net(x)
        for one in torch_means(CPU):
            if one.build is None:
                tolerance = 0.1 if "bfloat16" in one.name else 1e-5
                torch.testing.assert_close(one.load(net, x, None)(x).float(), plain, rtol=0, atol=tolerance)


@pytest.mark.slow
def test_compiled_ahead_of_time_and_loaded_again(tmp_path):
    means = {one.name: one for one in torch_means(CPU)}
    if "float32+compiled" not in means:
        pytest.skip("no C++ compiler")
    net, x = network(nn.InstanceNorm3d(4)), image(8, 8, 8)
    means["float32+compiled"].build(net, x, tmp_path)
    run = means["float32+compiled"].load(net, x, tmp_path)
    both = torch.cat([x, image(8, 8, 8, seed=2)])
    torch.testing.assert_close(run(both), net(both), rtol=0, atol=1e-5)
    # A window as it is cut out of a volume, and one whose channels lie side by side in memory.
    for strided in (image(9, 9, 9)[..., :8, :8, :8], x.contiguous(memory_format=torch.channels_last_3d)):
        torch.testing.assert_close(run(strided), net(strided), rtol=0, atol=1e-5)


@needs_openvino
def test_openvino_does_what_the_network_does(tmp_path):
    net = network(nn.InstanceNorm3d(4, affine=True))
    inferer = SlidingWindowInferer((8, 8, 8), 2, runtime=Runtime("openvino_float32", cache_dir=str(tmp_path)))
    x = image(13, 8, 9)
    torch.testing.assert_close(inferer(x, net), SlidingWindowInferer((8, 8, 8))(x, net), rtol=0, atol=1e-4)
    assert inferer.runtime.record["runtime"] == "openvino_float32"
    assert inferer.runtime.record["label_agreement"] == 1


@needs_openvino
def test_openvino_is_not_asked_to_report_what_it_does():
    """In a process of its own: others that this one runs may have imported the package that would."""
    script = """
import sys
from pipeline.inference.openvino_runtime import openvino
assert openvino().__name__ == "openvino"
assert "openvino_telemetry" not in sys.modules
"""
    python("-c", script)


@needs_openvino
@pytest.mark.skipif(sys.platform == "win32", reason="needs Unix's signals")
def test_networks_that_are_let_go_leave_a_process_that_takes_signals(tmp_path):
    """With OpenVINO's core per network, the first signal after the two were let go in their order ended the process."""
    script = """
import faulthandler, gc, os, signal, sys
from pathlib import Path
import torch
from pipeline.inference.openvino_runtime import converted, load_model, save_model
faulthandler.enable()  # so that, as in most notebooks, there is a stack for signals
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
network, window, file = torch.nn.Conv3d(1, 2, 3, padding=1).eval(), torch.zeros(1, 1, 8, 8, 8), Path(sys.argv[1])
save_model(converted(network, window), file)
first, second = load_model(file, window), load_model(file, window)
del first
gc.collect()
del second
gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
"""
    assert python("-c", script, tmp_path / "network.xml").stdout == "handled\n"


def test_a_runtime_by_name(tmp_path, has_bfloat16):
    net, x = network(), image(12, 8, 8)
    plain = SlidingWindowInferer((8, 8, 8))(x, net)
    assert torch.equal(SlidingWindowInferer((8, 8, 8), runtime="torch")(x, net), plain)
    runtime = Runtime("bfloat16+channels_last", cache_dir=None)
    rounded = SlidingWindowInferer((8, 8, 8), runtime=runtime)(x, net)
    torch.testing.assert_close(rounded, plain, rtol=0, atol=0.05)
    assert not torch.equal(rounded, plain)
    assert rounded.dtype == torch.float32
    assert runtime.record["runtime"] == "bfloat16+channels_last"


def test_what_the_cpu_has_no_kernels_for_is_neither_tried_nor_given(tmp_path, monkeypatch):
    """There torch's bfloat16 takes forty times as long as float32: a trial alone would be minutes of waiting."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    net, x = network(nn.InstanceNorm3d(4)), image(20, 16, 8)
    runtime = Runtime(work=range(50), cache_dir=str(tmp_path))
    SlidingWindowInferer((8, 8, 8), runtime=runtime)(x, net)
    assert "float32+channels_last" in runtime.record["trials"]
    assert not [name for name in (*runtime.record["trials"], *runtime.record["not_tried"]) if "bfloat16" in name]
    asked = SlidingWindowInferer((8, 8, 8), runtime=Runtime("bfloat16", cache_dir=None))
    with pytest.raises(ConfigError, match="this machine can't give"):
        asked(x, net)
    with pytest.raises(ConfigError, match="this machine can't give"):
        asked.runtime.require(CPU)
    for name in ("auto", "float32", "float32+channels_last", "openvino_int8"):
        Runtime(name).require(CPU)


def test_auto_keeps_to_the_labels_and_says_what_it_took(tmp_path):
    net, x = network(nn.InstanceNorm3d(4)), image(20, 16, 8)
    runtime = Runtime(work=range(50), cache_dir=str(tmp_path))
    found = SlidingWindowInferer((8, 8, 8), runtime=runtime)(x, net)
    plain = SlidingWindowInferer((8, 8, 8))(x, net)
    assert runtime.record["runtime"] in NAMES
    assert runtime.record["windows_ahead"] == 50 * 12
    assert json.loads(json.dumps(runtime.record)) == runtime.record
    assert (found.argmax(1) == plain.argmax(1)).float().mean() >= 0.998  # of the windows 0.999


def test_weights_that_change_are_seen(tmp_path):
    net, x = network(), image(8, 8, 8)
    inferer = SlidingWindowInferer((8, 8, 8), runtime=Runtime("float32+channels_last", cache_dir=None))
    inferer(x, net)
    with torch.no_grad():
        net[0].weight.mul_(3)
    torch.testing.assert_close(inferer(x, net), SlidingWindowInferer((8, 8, 8))(x, net), rtol=0, atol=1e-5)


def test_a_network_in_training_and_what_is_no_network_are_left_alone():
    def double(x):
        return x * 2

    inferer = SlidingWindowInferer((8, 8, 8), runtime=Runtime("bfloat16", cache_dir=None))
    x = image(8, 8, 8)
    assert torch.equal(inferer(x, double), x * 2)
    net = network()
    plain = SlidingWindowInferer((8, 8, 8))(x, net)
    assert torch.equal(inferer(x, net.train()), plain)


def test_unknown_and_impossible_names():
    with pytest.raises(ConfigError, match="found runtime 'fastest'; expected auto, torch or one of float32"):
        Runtime("fastest")
    inferer = SlidingWindowInferer((8, 8, 8), runtime=Runtime("float16", cache_dir=None))
    with pytest.raises(ConfigError, match="'float16', which this machine can't give on cpu"):
        inferer(image(8, 8, 8), network())


def test_openvino_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    inferer = SlidingWindowInferer((8, 8, 8), runtime=Runtime("openvino", cache_dir=None))
    with pytest.raises(ConfigError, match=r"no package openvino.*pip install 'monai-volume-pipeline\[openvino\]'"):
        inferer(image(8, 8, 8), network())
