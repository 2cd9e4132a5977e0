"""What a probe of runtimes found, kept per machine and network, with what was compiled and converted for it.

    runtimes/
      <key>/
        trials.json   every means that was tried: seconds, agreement, or why not
        openvino/     what one of them has built; see `pipeline.inference.means`

The key stands for the processor or GPU, the versions of what computes, the network (its code, structure and weights)
and the windows' shape. A compiled network is a program: the folder is its owner's alone, and another's is not used.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import platform
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import torch
from torch import nn

from pipeline.data.cache import cache_folder
from pipeline.data.cache_key import digest
from pipeline.data.code_key import source
from pipeline.errors import DataError
from pipeline.inference.quantized import state_digest
from pipeline.io.atomic import write_text

logger = logging.getLogger(__name__)

PLAIN = "float32"

_FORMAT, _MOST_NETWORKS = 2, 20
_PACKAGES = ("torch", "openvino", "triton")


@dataclass(frozen=True)
class Trial:
    """One means on one machine.

    Args:
        seconds: per window, at best.
        start_s: to load it, where nothing has to be built.
        agreement: share of voxels with float32's label.
        foreground: the same among those that either calls foreground, as a Dice coefficient; None where there was none.
        refused: why it is not to be used.

    Raises:
        ValueError: what no measurement gives.
    """

    seconds: float = 0.0
    start_s: float = 0.0
    agreement: float = 1.0
    foreground: float | None = 1.0
    refused: str = ""

    def __post_init__(self) -> None:
        shares = (self.agreement, 1.0 if self.foreground is None else self.foreground)
        numbers = (self.seconds, self.start_s, *shares)
        if not all(type(number) in (int, float) and 0 <= number < math.inf for number in numbers) or max(shares) > 1:
            raise ValueError(f"a trial of {numbers}")
        if not isinstance(self.refused, str):
            raise ValueError(f"a reason {self.refused!r}")


class RuntimeMemory:
    """The folder of one network on this machine; a temporary one where none is to be kept, or can be.

    Args:
        cache_dir: as `pipeline.data.cache.cache_folder` takes it.
        network, window, device: what the key is made of; ``window`` is a batch (b, C, *S).
        digests: of what a means runs that is not made from the network here, by the means' name.
    """

    def __init__(
        self,
        cache_dir: str | None,
        network: nn.Module,
        window: torch.Tensor,
        device: torch.device,
        digests: Mapping[str, str] | None = None,
    ) -> None:
        self._digests = dict(digests or {})
        root = cache_folder(cache_dir, "runtimes")
        self.kept = root is not None and _owned(root)
        if not self.kept or root is None:
            root = Path(tempfile.mkdtemp(prefix="runtimes-"))
            weakref.finalize(self, shutil.rmtree, root, ignore_errors=True)
        self.folder = root / network_key(network, window.shape, device)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        if self.kept:
            os.utime(self.folder)
            _forget_oldest(root)

    def trials(self) -> dict[str, Trial]:
        """What is known already, by the means' names."""
        file = self.folder / "trials.json"
        if not file.is_file():
            return {}
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            known = {name: Trial(**values) for name, values in content["trials"].items()}
            before = content["digests"]
            if known[PLAIN].refused or known[PLAIN].seconds == 0:
                raise ValueError("float32 that was not measured")
            return {name: trial for name, trial in known.items() if before.get(name) == self._digests.get(name)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("%s is damaged (%s: %s); every runtime is tried again", file, type(error).__name__, error)
            return {}

    def keep(self, trials: dict[str, Trial]) -> None:
        known = {name: asdict(trial) for name, trial in trials.items()}
        content = {"trials": known, "digests": {name: d for name, d in self._digests.items() if name in known}}
        with contextlib.suppress(DataError):  # a full disk: it is tried again next time
            write_text(self.folder / "trials.json", json.dumps(content, indent=1))


def network_key(network: nn.Module, shape: Sequence[int], device: torch.device) -> str:
    """Changes whenever a trial, or what was built for it, might not hold any more."""
    modules = list(network.modules())
    code = {type(module).__module__ for module in modules}
    plain = (bool, int, float, str, tuple, list, type(None))
    # Values that no tensor and no repr shows, such as the depth at which a network answers.
    settings = [
        {name: repr(value) for name, value in vars(module).items() if isinstance(value, plain)} for module in modules
    ]
    return digest(
        [
            _FORMAT,
            machine(device),
            [_version(name) for name in _PACKAGES],
            repr(network),
            settings,
            {name: source(name) for name in sorted(code)},
            state_digest(network),
            list(shape),
        ]
    )


def machine(device: torch.device) -> list[str]:
    """What decides how fast a network runs, as far as names tell."""
    if device.type == "cuda":
        capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
        return [torch.cuda.get_device_name(device), capability, str(torch.version.cuda)]
    return [
        _processor(),
        platform.machine(),
        f"{torch.get_num_threads()} threads",
        torch.backends.cpu.get_cpu_capability(),
    ]


def _processor() -> str:
    """Its name and its flags: in a virtual machine the name alone says little."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    found = dict(line.split(":", 1) for line in lines[: lines.index("") if "" in lines else None] if ":" in line)
    told = {name.strip(): value.strip() for name, value in found.items()}
    return f"{told.get('model name', platform.processor())} {digest(told.get('flags', told.get('Features', '')))[:8]}"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _owned(root: Path) -> bool:
    """Whether ``root``, made where it is missing, is this user's alone."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        stat = root.stat()
        if os.name == "posix" and (stat.st_uid != os.getuid()):
            return False
        if stat.st_mode & 0o077:
            root.chmod(0o700)
        return os.access(root, os.W_OK)
    except OSError:
        return False


def _forget_oldest(root: Path) -> None:
    with contextlib.suppress(OSError):  # another process is doing the same
        folders = sorted((entry for entry in root.iterdir() if entry.is_dir()), key=lambda entry: entry.stat().st_mtime)
        for folder in folders[:-_MOST_NETWORKS]:
            shutil.rmtree(folder, ignore_errors=True)
