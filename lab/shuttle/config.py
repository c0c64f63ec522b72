# SPDX-License-Identifier: Apache-2.0
"""What the truth wire shall be and what it shall do to frames."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from tickpath.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class When:
    """Which candidates a fault befalls: every n-th, and each with a probability, by seed and candidate number."""

    probability: float = 0.0
    every: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise ConfigError(f"probability {self.probability}: must be between 0 and 1")
        if self.every < 0:
            raise ConfigError(f"every={self.every}: must be 0 (never) or more")


NEVER = When()
ALWAYS = When(every=1)


@dataclass(frozen=True, kw_only=True)
class Faults:
    """The faults of one direction. They befall candidates only, and only while the wire is armed.

    Candidates are TCP segments with payload, or with `only_payload=False` all frames; with a `port`, TCP segments from
    or to it. A frame meets the faults in this order: drop; corrupt (its TCP checksum); delay, by `delay_ns` and up to
    `delay_jitter_ns` more, while all frames behind it wait too; swap, until `swap_by` later candidates went first, or
    `swap_wait_ns` passed; hold, which collects candidates for `hold_ns` or until there are `hold_frames`, then writes
    them back to back; duplicate, which writes `duplicate_copies` more, `duplicate_apart_ns` apart.
    """

    drop: When = NEVER
    corrupt: When = NEVER
    duplicate: When = NEVER
    duplicate_copies: int = 1
    duplicate_apart_ns: int = 0
    swap: When = NEVER
    swap_by: int = 1
    swap_wait_ns: int = 5_000_000
    hold: When = NEVER
    hold_ns: int = 1_000_000
    hold_frames: int = 16
    delay: When = NEVER
    delay_ns: int = 0
    delay_jitter_ns: int = 0
    only_payload: bool = True
    port: int = 0

    def __post_init__(self) -> None:
        bounds = {
            "duplicate_copies": (1, 255),
            "swap_by": (1, 1000),
            "hold_frames": (1, 1000),
            "port": (0, 65535),
            **dict.fromkeys(_TIMES, (0, 60000000000)),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name}={value}: must be between {low} and {high}")

    def words(self, prefix: str) -> list[str]:
        """For the shuttle's command line."""
        words = []
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, When):
                words.append(f"{prefix}.{entry.name}.probability={value.probability!r}")
                words.append(f"{prefix}.{entry.name}.every={value.every}")
            else:
                words.append(f"{prefix}.{entry.name}={int(value)}")
        return words


_TIMES = ("duplicate_apart_ns", "swap_wait_ns", "hold_ns", "delay_ns", "delay_jitter_ns")


@dataclass(frozen=True, kw_only=True)
class WireConfig:
    """A truth wire. With `gro`, received frames are merged as behind a NIC: NAPI waits `gro_flush_ns` for more."""

    seed: int = 1
    to_client: Faults = field(default_factory=Faults)
    to_server: Faults = field(default_factory=Faults)
    mtu_bytes: int = 1500
    gro: bool = False
    gro_flush_ns: int = 200_000
    armed: bool = True

    def __post_init__(self) -> None:
        if not 1280 <= self.mtu_bytes <= 65000:
            raise ConfigError(f"mtu_bytes={self.mtu_bytes}: must be between 1280 (the least for IPv6) and 65000")
        if not 0 <= self.seed < 1 << 64:
            raise ConfigError(f"seed={self.seed}: must fit 64 bits")
        if self.gro_flush_ns < 0:
            raise ConfigError(f"gro_flush_ns={self.gro_flush_ns}: must not be negative")

    def words(self) -> list[str]:
        """For the shuttle's command line."""
        return [
            f"seed={self.seed}",
            f"mtu_bytes={self.mtu_bytes}",
            f"gro={int(self.gro)}",
            *self.to_client.words("to_client"),
            *self.to_server.words("to_server"),
        ]
