"""What a bundle asks of the files of a case, in one object for whoever loads or checks them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.errors import ConfigError
from pipeline.io.policy import STRICT, ReadPolicy


@dataclass(frozen=True)
class StackRules:
    """What a bundle asks of the files of a case. The default takes any label, and refuses all that has two meanings.

    Args:
        labels: ids that a label may hold, 0 is always among them; None allows any.
        label_values: id -> value that stands for it in the files, see `load_label`.
        label_holds: ``"classes"``, or ``"instances"``: any number above 0 is an object of the one class in ``labels``.
        on_other_grid: see `load_stack`.
        missing_channels: ``"refuse"`` a case that lacks a channel, or take it as ``"zero"``.
        policy: how headers are read.
        volumes: channel -> which volume of a 4D series it is, where that differs from channel to channel.
    """

    labels: tuple[int, ...] | None = None
    label_values: Mapping[int, int] = field(default_factory=dict)
    label_holds: str = "classes"
    on_other_grid: str = "resample"
    missing_channels: str = "refuse"
    policy: ReadPolicy = STRICT
    volumes: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.on_other_grid not in ("resample", "refuse"):
            raise ConfigError(f"on_other_grid={self.on_other_grid!r}", expected="resample or refuse")
        if self.missing_channels not in ("refuse", "zero"):
            raise ConfigError(f"missing_channels={self.missing_channels!r}", expected="refuse or zero")
        if self.label_holds not in ("classes", "instances"):
            raise ConfigError(f"label_holds={self.label_holds!r}", expected="classes or instances")
        if self.label_holds == "instances" and (len(self.labels or ()) != 1 or self.label_values):
            raise ConfigError(
                f"label_holds='instances' with classes {self.labels} and label_values {dict(self.label_values)}",
                expected="one class, which all objects are of, and no label_values",
            )
        for channel in self.volumes:
            self.policy_of(channel)

    def policy_of(self, channel: str) -> ReadPolicy:
        """How the file of one channel is read."""
        return replace(self.policy, volume=self.volumes.get(channel, self.policy.volume))

    @property
    def label_policy(self) -> ReadPolicy:
        """How a label is read: no voxel of it may be guessed, and it is no series."""
        return replace(self.policy, non_finite="refuse", volume=None, colour="refuse")


def stack_rules(
    channels: Sequence[str],
    *,
    labels: Iterable[int | str] | None = None,
    label_values: Mapping[int, int] | Mapping[str, int] | None = None,
    label_holds: str = "classes",
    on_other_grid: str = "resample",
    missing_channels: str = "refuse",
    non_finite: str = "refuse",
    assume_orientation: str | None = None,
    trust: str | None = None,
    volume: int | Mapping[str, int] | None = None,
    spacing_limits_mm: Sequence[float] = STRICT.spacing_limits_mm,
    colour: str = "refuse",
) -> StackRules:
    """The rules as a config words them: the arguments of `LoadImageStackd`, which says what they mean.

    Raises:
        ConfigError: values that are not known, or contradict each other.
    """
    values = {int(label): int(value) for label, value in (label_values or {}).items()}
    if len(set(values.values())) < len(values):
        raise ConfigError(f"label_values={dict(label_values or {})}", expected="another value for each id")
    volumes = {name.lower(): n for name, n in volume.items()} if isinstance(volume, Mapping) else {}
    unknown = [name for name in volumes if name not in channels]
    if unknown:
        raise ConfigError(f"volume of {', '.join(unknown)}", expected=f"channels out of {', '.join(channels)}")
    limits = spacing_limits_mm
    if not isinstance(limits, list | tuple) or [isinstance(limit, int | float) for limit in limits] != [True, True]:
        raise ConfigError(f"spacing_limits_mm={limits}", expected="two sides in mm, such as [0.01, 30]")
    return StackRules(
        labels=None if labels is None else tuple(int(label) for label in labels),
        label_values=values,
        label_holds=label_holds,
        on_other_grid=on_other_grid,
        missing_channels=missing_channels,
        policy=ReadPolicy(
            non_finite=non_finite,
            assume_orientation=assume_orientation,
            trust=trust,
            volume=None if isinstance(volume, Mapping) else volume,
            spacing_limits_mm=(float(limits[0]), float(limits[1])),
            colour=colour,
        ),
        volumes=volumes,
    )
