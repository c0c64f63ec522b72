# SPDX-License-Identifier: Apache-2.0
"""A known time put into one hop of one feed, on the running stack of the profile `demo`: that hop is told, it alone.

Two clients of a team's own (paced.py) take a paced stream each beside the stack's own feeds: one is slowed down, the
other stays as it is. Their records, the wire's and the kernel's go the way that they go on a user's host. What is asked
is a second Prometheus on the same exporter with the same rules, whose minutes last two seconds, and a calm past.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from rules.quicker import quicker
from stack.composed import BUILD, PORTS, REGION, Started, namespace, published
from stack.holding import Where, held
from stack.prometheus import Prometheus, Sample, needs_prometheus, promtool

pytestmark = [needs_prometheus, pytest.mark.root, pytest.mark.timeout(900)]

EXCHANGE = "127.0.0.2:18065"
"""Another address than the stack's own simulator has, at the port that its probes watch."""
FEEDS = ("paced-slowed", "paced-clean")
GAP_S = 0.2
PUT_IN_S = 0.04
"""A fifth of the gap: the next message finds nobody busy."""
MESSAGES = 20_000
# A minute becomes two seconds. A rise below 20 milliseconds, which a busy machine makes by itself, is none here. And
# the clock: where nobody synchronises the host's, or somebody sets it (other tests do, by a nanosecond), the alert on
# bn_to_nic is silent, as it should be; but exchange and client of this test read the same one.
QUICKER = {
    r"\[5m\]": "[10s]",
    r"interval: 1m": "interval: 2s",
    r"for: 7m": "for: 14s",
    r"keep_firing_for: 5m": "keep_firing_for: 10s",
    r"(tickpath:minimum_history:minutes\", expr: vector)\(360\)": r"\1(100)",
    r"(tickpath:minimum_change_seconds\", expr: vector)\([\d.]+\)": r"\1(0.02)",
    r"(tickpath:queueing_limit_seconds\", expr: vector)\([\d.]+\)": r"\1(0.02)",
    r"increase\(tickpath_clock_steps_total\[24h\]\) > 0": "increase(tickpath_clock_steps_total[24h]) > 1e9",
    r"max_over_time\(tickpath_clock_uncertainty_seconds\[15m\]\)": r"clamp_max(\g<0>, 0.001)",
}
_WITHIN_S = 60
_ATTEMPTS = 3
# What is back-filled as each series' past: labels of the series, and about what its P99 is, in seconds.
CALM = (
    ({"hop": "bn_to_nic", "source": "sw"}, 3e-3),
    ({"hop": "nic_to_kernel", "source": "sw"}, 3e-5),
    ({"hop": "kernel_to_user", "part": "wake"}, 3e-4),
    ({"hop": "kernel_to_user", "part": "decode"}, 3e-4),
    ({"hop": "cpu"}, 1e-4),
    ({"hop": "msk"}, 1e-4),
)
PAST_MINUTES = 170
# The host's clock is as it is, and not what is tested here.
_FIRING = 'ALERTS{alertstate="firing", alertname!~"TickpathClock.+"}'
_LABELS = ("alertname", "region", "feed", "hop", "part")


@dataclass
class Client:
    """A running paced.py."""

    name: str
    process: subprocess.Popen[str]
    port: int

    def dawdle(self, part: str, seconds: float) -> None:
        """From now on, at this point of each message."""
        assert self.process.stdin
        print(part, seconds, file=self.process.stdin, flush=True)


@dataclass(frozen=True)
class Quick:
    """What the injections are made on and asked from."""

    demo: Started
    prometheus: Prometheus
    slowed: Client
    clean: Client


@dataclass(frozen=True)
class Injection:
    """`how` the time comes in, and what must be told."""

    hop: str
    how: str
    alert: str = "TickpathLatencyRegression"
    part: str = ""
    kernel: bool = False
    """Whether only a kernel probe can see it."""

    def told(self) -> tuple[str, ...]:
        return (self.alert, REGION, FEEDS[0], self.hop, self.part)

    def into(self, quick: Quick) -> AbstractContextManager[None]:
        """The time is put in for as long as the block runs."""
        where = namespace(quick.demo.host)
        port = quick.slowed.port
        match self.hop, self.part:
            case "bn_to_nic", _:
                return held(where, Where.BEFORE_NIC, port, PUT_IN_S)
            case "nic_to_kernel", _:
                return held(where, Where.BEFORE_TCP, port, PUT_IN_S)
            case "kernel_to_user", "wake":
                return held(where, Where.BEFORE_TCP, port, PUT_IN_S, reader=quick.slowed.process.pid)
            case "kernel_to_user", _:
                return _dawdling(quick.slowed, "app_busy")
            case _:
                return _dawdling(quick.slowed, self.hop)


INJECTIONS = [
    Injection("bn_to_nic", "packets wait before the device"),
    Injection("nic_to_kernel", "packets wait between capture and TCP", kernel=True),
    Injection("kernel_to_user", "the reader stands still while data comes", part="wake", kernel=True),
    Injection("kernel_to_user", "the reader does other work first", "TickpathApplicationQueues", kernel=True),
    Injection("cpu", "parsing takes longer"),
    Injection("msk", "publishing takes longer"),
]


@contextlib.contextmanager
def _dawdling(client: Client, part: str) -> Iterator[None]:
    client.dawdle(part, PUT_IN_S)
    try:
        yield
    finally:
        client.dawdle("nowhere", 0)


def _recording(path: Path) -> Path:
    """Trades at equal distances, as a recorder would have written them."""
    with path.open("w") as file:
        for number in range(MESSAGES):
            at_ns = 1_700_000_000_000_000_000 + int(number * GAP_S * 1e9)
            at_ms = at_ns // 1_000_000
            trade = {"e": "trade", "E": at_ms, "T": at_ms, "s": "BTCUSDT", "t": number, "p": "61800.0", "q": "0.001"}
            print(at_ns, json.dumps({**trade, "X": "MARKET", "m": True}, separators=(",", ":")), file=file)
    return path


def _past(path: Path) -> Path:
    """Calm minutes of every series until five minutes ago, as OpenMetrics."""
    name = "instance:tickpath_watched_latency_seconds:p99_calm"
    target = {"instance": f"127.0.0.1:{PORTS['exporter']}", "job": "tickpath", "region": REGION}
    now = int(time.time()) - 300
    lines = [f"# TYPE {name} gauge"]
    for feed in FEEDS:
        for labels, calm in CALM:
            every = {**target, "venue": "binance-usdm", "feed": feed, **labels}
            inside = ",".join(f'{label}="{value}"' for label, value in every.items())
            lines += [
                f"{name}{{{inside}}} {calm * (1 + 0.05 * (minute % 5))} {now - 60 * minute}"
                for minute in reversed(range(PAST_MINUTES))
            ]
    path.write_text("\n".join([*lines, "# EOF", ""]))
    return path


@contextlib.contextmanager
def _process(demo: Started, argv: Sequence[str | Path]) -> Iterator[subprocess.Popen[str]]:
    """Of the host, in the group of the ring directory, and before the host's other work: it is not what is tested."""
    identity = ["setpriv", "--pdeathsig", "KILL", "--reuid", "12345", "--regid", "10001", "--clear-groups"]
    process = subprocess.Popen(
        demo.host.inside(["chrt", "--fifo", "5", *identity, sys.executable, "-P", *argv]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def _says(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    line = process.stdout.readline()
    assert line, f"ended with {process.wait()}"
    return line


@pytest.fixture(scope="session")
def paced(demo: Started) -> Iterator[tuple[Client, Client]]:
    """The clients stay until the stack goes: one that left would be told as a feed that fell silent."""
    simulate = ["-m", "tickpath", "simulate", "--venue", "usdm", "--shared-clock", "--replay"]
    host, port = EXCHANGE.split(":")
    with contextlib.ExitStack() as stack:
        # Not below pytest's own folder, which every other session of pytest's closes to others as it begins.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tickpath-paced-")))
        folder.chmod(0o755)
        exchange = stack.enter_context(
            _process(demo, [*simulate, _recording(folder / "trades"), "--host", host, "--port", port])
        )
        _says(exchange)
        clients = []
        for name in FEEDS:
            client = stack.enter_context(_process(demo, [Path(__file__).with_name("paced.py"), name, EXCHANGE]))
            clients.append(Client(name, client, int(_says(client))))
        yield clients[0], clients[1]


@pytest.fixture(scope="module")
def quick(demo: Started, paced: tuple[Client, Client], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quick]:
    folder = tmp_path_factory.mktemp("quick")
    # What a client does for the first time takes longer: no part of its history.
    begun = re.compile(rb'tickpath_messages_total\{[^}]*feed="paced-clean"[^}]*\} ([1-9]\d\d)')
    deadline = time.monotonic() + _WITHIN_S
    while not begun.search(published(demo.host, "exporter").fetch("/metrics")[1]):
        assert time.monotonic() < deadline, "no messages of the paced clients"
        time.sleep(0.5)
    # The simulator's own bursts are for minutes that last one: test_quiet.py watches those feeds.
    data = folder / "prometheus" / "data"
    data.mkdir(parents=True)
    promtool("tsdb", "create-blocks-from", "openmetrics", _past(folder / "past"), data)
    relabel = [{"source_labels": ["feed"], "regex": "usdm-.*", "action": "drop"}]
    with Prometheus(
        folder / "prometheus",
        {REGION: [f"127.0.0.1:{PORTS['exporter']}"]},
        quicker(folder / "rules", QUICKER),
        namespace=namespace(demo.host),
        relabel=relabel,
    ) as prometheus:
        yield Quick(demo, prometheus, *paced)


def _label_sets(samples: Sequence[Sample]) -> set[tuple[str, ...]]:
    return {tuple(sample.labels.get(name, "") for name in _LABELS) for sample in samples}


def _none_fires(prometheus: Prometheus) -> bool:
    return not prometheus.query(_FIRING)


def _until(true: Callable[[], bool]) -> float | None:
    """How many seconds until it was so; None: never, in the time that there is."""
    began_s = time.monotonic()
    while not true():
        if time.monotonic() - began_s > _WITHIN_S:
            return None
        time.sleep(0.2)
    return time.monotonic() - began_s


def _put_in(quick: Quick, injection: Injection) -> tuple[float | None, float | None, set[tuple[str, ...]]]:
    """How long until something was told, and until it was over, and all that was told meanwhile."""
    prometheus = quick.prometheus
    change = "instance:tickpath_watched_latency_seconds:p99_change"
    prometheus.wait(f'{change}{{feed="{FEEDS[0]}", hop="{injection.hop}"}}', _WITHIN_S)
    _until(lambda: _none_fires(prometheus))
    began_s = time.monotonic()
    with injection.into(quick):
        fired_s = _until(lambda: not _none_fires(prometheus))
        time.sleep(2)  # who comes along comes now
    cleared_s = _until(lambda: _none_fires(prometheus))
    told = prometheus.query(f"last_over_time({_FIRING}[{int(time.monotonic() - began_s)}s])")
    return fired_s, cleared_s, _label_sets(told)


def test_the_slowed_hop_is_told_and_it_alone(quick: Quick) -> None:
    """What else the machine does can slow a hop as truly as this test: three times in a row it does not."""
    lines = ["put in\thow\ttold: alert, region, feed, hop, part\tafter s\tcleared after s\tothers told\tattempts"]
    wrong = []
    kernel = quick.demo.sees_the_kernel()
    for injection in INJECTIONS:
        if injection.kernel and not kernel:
            lines.append(f"{injection.hop}\t{injection.how}\tno: this kernel has no typed tracepoints\t\t\t\t")
            continue
        attempts, alone = 0, False
        while not alone and attempts < _ATTEMPTS:
            attempts += 1
            fired_s, cleared_s, told = _put_in(quick, injection)
            alone = told == {injection.told()} and cleared_s is not None
        if not alone:
            wrong.append((injection, told))
        right = injection.told() in told
        lines.append(
            f"{PUT_IN_S * 1e3:g} ms into {injection.hop} of {FEEDS[0]}\t{injection.how}\t"
            f"{', '.join(injection.told()) if right else 'not this'}\t"
            f"{fired_s or -1:.1f}\t{cleared_s or -1:.1f}\t{len(told) - right}\t{attempts}"
        )
    BUILD.mkdir(exist_ok=True)
    (BUILD / "stack-injections.tsv").write_text("\n".join(lines) + "\n")
    assert not wrong
