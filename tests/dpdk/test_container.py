# SPDX-License-Identifier: Apache-2.0
"""What a container of the capture is given: every setting by its name, and no right longer than it is used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import yaml

from tickpath.dpdk_capture.config import DpdkConfig

ROOT = Path(__file__).parents[2]
_FORGO = """
import os
from pathlib import Path
from tickpath.dpdk_capture import rights
def tell():
    print(*(line for line in Path("/proc/thread-self/status").open() if line.startswith("CapEff")), flush=True)
tell()
rights.forgo()
tell()
os.execv("/bin/grep", ["grep", "CapEff", "/proc/self/status"])
"""


def test_every_setting_reaches_the_container() -> None:
    services = yaml.safe_load((ROOT / "compose.dpdk.yaml").read_text())["services"]
    assert set(services) == {"capture"}
    passed = {name for name in services["capture"]["environment"] if name.startswith("TICKPATH_DPDK_")}
    known = {f"TICKPATH_DPDK_{field.name.upper()}" for field in msgspec.structs.fields(DpdkConfig)}
    assert passed == known


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: rights to lose")
def test_the_right_to_look_into_others_is_gone_for_good() -> None:
    contained = ["setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all,+sys_ptrace,+net_raw"]
    done = subprocess.run([*contained, sys.executable, "-P", "-c", _FORGO], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rights = [int(line.split()[1], 16) for line in done.stdout.splitlines() if line]
    assert rights == [1 << 19 | 1 << 13, 1 << 13, 1 << 13]  # before, after, executed: NET_RAW stays
