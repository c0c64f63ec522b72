# SPDX-License-Identifier: Apache-2.0
"""What this host offers the kernel probe, for doctor: found by attaching the programs, for a moment."""

from __future__ import annotations

from tickpath.capability import Capability
from tickpath.probes.kernel.programs import UnavailableError, load
from tickpath.selector import Selector

_RANKS = {"tp_btf": 0, "fentry": 1, "kprobe": 2}
_NOBODY = Selector(port=0)
_NEEDS = {"nic_to_kernel": ("readable",), "kernel_to_user": ("readable", "copied", "asked")}
"""What each hop ends or begins with first; the others give its parts."""


def capabilities() -> list[Capability]:
    """The best rung of the two hops that end or begin in the kernel."""
    try:
        # No socket comes from port 0: nothing is recorded.
        tracer = load([_NOBODY], buffer_bytes=1 << 16, last_resort=False)
    except UnavailableError as error:
        return [Capability(hop, "ebpf", 0, False, error.reason, error.remedy) for hop in _NEEDS]
    try:
        modes, refusals = tracer.modes, tracer.refusals
    finally:
        tracer.close()
    return [_capability(hop, hooks, modes, refusals) for hop, hooks in _NEEDS.items()]


def _capability(hop: str, hooks: tuple[str, ...], modes: dict[str, str], refusals: dict[str, str]) -> Capability:
    mode = modes[hooks[0]]
    if mode == "none":
        return Capability(hop, "ebpf", 0, False, f"{hooks[0]}: {refusals.get(hooks[0], 'no way to attach')}")
    found = ", ".join(_found(hook, modes, refusals) for hook in hooks)
    detail = f"{found}: the kernel's own times, to the byte, while `tickpath probe kernel` runs"
    return Capability(hop, f"ebpf {mode}", _RANKS[mode], True, detail)


def _found(hook: str, modes: dict[str, str], refusals: dict[str, str]) -> str:
    if modes[hook] != "none":
        return f"{hook} by {modes[hook]}"
    return f"{hook} not to be had ({refusals.get(hook, 'no way to attach')})"
