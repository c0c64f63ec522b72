# SPDX-License-Identifier: Apache-2.0
"""The compiled programs themselves: nothing in them that lockdown forbids."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tickpath.probes.kernel.programs import TYPED

# By number, as in linux/bpf.h: every helper that the object may call.
ALLOWED = {
    1: "map_lookup_elem",
    2: "map_update_elem",
    3: "map_delete_elem",
    5: "ktime_get_ns",
    14: "get_current_pid_tgid",
    16: "get_current_comm",
    46: "get_socket_cookie",
    80: "get_current_cgroup_id",
    107: "sk_storage_get",
    131: "ringbuf_reserve",
    132: "ringbuf_submit",
    137: "skc_to_tcp_sock",
}


@pytest.mark.skipif(not TYPED.exists(), reason="this installation was built without the kernel probe")
@pytest.mark.skipif(shutil.which("llvm-objdump") is None, reason="no llvm-objdump here")
def test_the_programs_call_no_helper_that_reads_memory_unchecked() -> None:
    code = subprocess.run(
        ["llvm-objdump", "-dr", "--no-show-raw-insn", TYPED], capture_output=True, text=True, check=True
    ).stdout
    called = {int(number) for number in re.findall(r"\bcall (\d+)$", code, re.MULTILINE)}
    assert called
    assert called <= ALLOWED.keys(), "a helper that is not in the list"
    assert "callx" not in code
    by_name = re.findall(r"\bcall -1\n.*R_BPF_64_32\s+(\w+)$", code, re.MULTILINE)
    assert len(by_name) == len(re.findall(r"\bcall -", code))
    assert set(by_name) <= {"bpf_rdonly_cast"}, "a function of the kernel's that is not in the list"
