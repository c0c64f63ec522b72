# SPDX-License-Identifier: Apache-2.0
"""Prometheus' histogram_quantile against the exact quantiles of the same messages, and of data in clusters."""

from __future__ import annotations

import csv
import math
import time
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from exporter_samples import FakeService, empty_snapshot, observation, series, served
from stack.prometheus import Prometheus, needs_prometheus
from tickpath.exporter.correlator import Correlator
from tickpath.exporter.correlator.joined import HOPS, JOINED, PARTS, SPANS, Leg
from tickpath.exporter.cursors import CursorFile
from tickpath.exporter.service import Service
from tickpath.exporter.snapshot import SeriesKind
from tickpath.histogram import bucket_index
from tickpath.lab.demo.pipeline import DemoSettings, Pipeline
from tickpath.lab.simulator.config import EventTimes
from tickpath.ring import make_directory

pytestmark = [needs_prometheus, pytest.mark.timeout(300)]

RECORDING = Path(__file__).parents[3] / "shared" / "data" / "binance-usdm-btcusdt-20240808.ws.gz"
BUILD = Path(__file__).parents[2] / "build"
QUANTILES = (0.5, 0.99, 0.999)
_PLAYED_S = 15
_SETTLE_S = 60
_CAPACITY = 1 << 16
_REPLAY = "recorded" if RECORDING.exists() else "generated"
_QUANTILE = "histogram_quantile({}, {})"
# Buckets of one sign are counted from here, so that the zero bucket is between both signs.
_SMALLEST = bucket_index(1)

_RANDOM = np.random.default_rng(5)
# 1,953,125 ns are 2**-9 s: the upper bound of a bucket, which holds it; a nanosecond more is in the next.
CLUSTERED: dict[str, npt.NDArray[np.int64]] = {
    "all on one edge": np.full(5000, 1_953_125),
    "all just above an edge": np.full(5000, 1_953_126),
    "all of one value": np.full(5000, 20_000),
    "two modes": np.repeat([20_000, 40_000_000], [4900, 100]),
    "two modes, the rank between them": np.repeat([20_000, 40_000_000], [4950, 50]),
    "three edges": np.repeat([400, 1_000_003, 50_000_000], [900, 95, 5]),
    "all negative, one value": np.full(3000, -1_270_000_000),
    "all negative": -1_270_000_000 + _RANDOM.normal(0, 5e6, 3000).astype(np.int64),
    "both signs": np.repeat([-1_000_000, 1_000_000], [2500, 2500]),
    "around zero": np.concatenate([_RANDOM.normal(0, 1e6, 3000).astype(np.int64), np.zeros(100, np.int64)]),
    "all zero": np.zeros(1000, np.int64),
    "zero, and a slow hundredth": np.repeat([0, 5_000_000], [980, 20]),
    "one value alone": np.array([123_456]),
    "log-normal": _RANDOM.lognormal(math.log(20_000), 1.5, 5000).astype(np.int64),
}


@dataclass(frozen=True)
class Row:
    """One line of build/quantiles.tsv; seconds."""

    data: str
    series: str
    messages: int
    quantile: float
    exact: float
    prometheus: float
    off_percent: float
    buckets_apart: int


def exact(values_ns: npt.NDArray[np.int64], q: float) -> tuple[int, int]:
    """Least and greatest q-quantile: two where q times the count is a whole number, and all between them are as good.

    Prometheus counts from the nearer end, so from above for a median or more.
    """
    from_below = np.quantile(values_ns, q, method="inverted_cdf")
    from_above = -np.quantile(-values_ns, 1 - q, method="inverted_cdf")
    return min(int(from_below), int(from_above)), max(int(from_below), int(from_above))


def bucket(seconds: float) -> int:
    """Numbers that differ by one for buckets that touch, 0 for the zero bucket."""
    magnitude_ns = round(abs(seconds) * 1e9)
    number = bucket_index(magnitude_ns) - _SMALLEST + 1 if magnitude_ns else 0
    return int(math.copysign(number, seconds))


def compared(data: str, name: str, values_ns: npt.NDArray[np.int64], q: float, read: float) -> Row:
    low_ns, high_ns = exact(values_ns, q)
    low, high = bucket(low_ns / 1e9), bucket(high_ns / 1e9)
    apart = max(low - bucket(read), bucket(read) - high, 0)
    nearest = min(max(read, low_ns / 1e9), high_ns / 1e9)
    off = 100 * (read - nearest) / abs(nearest) if nearest else 0.0
    return Row(data, name, len(values_ns), q, nearest, read, round(off, 2), apart)


def write(rows: list[Row], data: str) -> None:
    """Put the rows of a kind of data into the table, in place of those that it had."""
    BUILD.mkdir(exist_ok=True)
    path = BUILD / "quantiles.tsv"
    kept = list(csv.reader(path.open(), delimiter="\t"))[1:] if path.exists() else []
    with path.open("w") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(field.name for field in fields(Row))
        table.writerows(row for row in kept if row[0] != data)
        table.writerows(astuple(row) for row in rows)


def test_clustered_data_is_read_in_its_bucket_or_the_next(tmp_path: Path) -> None:
    made = tuple(series(SeriesKind.HOP, name, map(int, values)) for name, values in CLUSTERED.items())
    service = FakeService(observation(replace(empty_snapshot(), series=made)))
    with served(service) as target, Prometheus(tmp_path, {"local": [target]}) as prometheus:
        prometheus.wait("tickpath_hop_latency_seconds")
        rows = []
        for q in (0.001, 0.01, *QUANTILES):
            read = prometheus.query(_QUANTILE.format(q, "tickpath_hop_latency_seconds"))
            found = {sample.labels["hop"]: sample.value for sample in read}
            rows += [compared("clustered", name, values, q, found[name]) for name, values in CLUSTERED.items()]
    write(rows, "clustered")
    assert not [row for row in rows if row.buckets_apart > 1]


@pytest.mark.root
def test_a_replay_is_read_in_its_bucket_or_the_next(tmp_path: Path) -> None:
    rings = tmp_path / "rings"
    make_directory(rings)
    correlator = Correlator(joined_capacity=_CAPACITY)
    # Before the pipeline, so that it reads each ring from the first record.
    service = Service(correlator, rings, CursorFile(tmp_path / "cursors"))
    service.start()
    try:
        with served(service) as target:
            sent = play(tmp_path)
            deadline = time.monotonic() + _SETTLE_S
            while sum((seen := service.observe().snapshot).messages.values()) < sent or seen.pending:
                assert time.monotonic() < deadline, (sent, seen.messages, seen.pending)
                time.sleep(0.1)
            messages = np.zeros(_CAPACITY, JOINED)
            messages = messages[: correlator.joined(messages)]
            assert len(messages) == sent > 1000
            with Prometheus(tmp_path / "prometheus", {"local": [target]}) as prometheus:
                prometheus.wait(f"sum(tickpath_messages_total) == {sent}")
                rows = read_as_prometheus_does(prometheus, correlator.labels(), messages)
    finally:
        service.stop()
    write(rows, _REPLAY)
    wanted = (*HOPS, *PARTS, Leg.TOTAL, Leg.IN_HOST)
    assert {leg.name.lower() for leg in wanted} <= {row.series.split()[0] for row in rows}
    assert not [row for row in rows if row.buckets_apart > 1]


def play(folder: Path) -> int:
    """A recorded feed where there is one, else a generated one, through every probe; how many messages were sent."""
    settings = DemoSettings(
        replay=RECORDING if RECORDING.exists() else None,
        speed="2",
        tls=None,
        event_times=EventTimes.NOW,
        exporter_port=0,
        publish_port=0,
    )
    with Pipeline(settings, folder) as pipeline:
        if refused := pipeline.wire_refused or pipeline.kernel_refused:
            pytest.skip(f"needs every probe: {refused}")
        time.sleep(_PLAYED_S)
        _, sent = pipeline.finish()
        assert not pipeline.faults()
    return sent


def read_as_prometheus_does(
    prometheus: Prometheus, labels: list[tuple[str, str]], messages: npt.NDArray[np.void]
) -> list[Row]:
    rows = []
    for metric, legs, named in (
        ("tickpath_hop_latency_seconds", HOPS, "hop"),
        ("tickpath_hop_part_latency_seconds", tuple(PARTS), "part"),
        ("tickpath_span_latency_seconds", SPANS, "span"),
    ):
        whole = f"sum by ({named}, feed) ({metric})"
        counted = {(s.labels[named], s.labels["feed"]): s.value for s in prometheus.query(whole)}
        for q in QUANTILES:
            found = prometheus.query(_QUANTILE.format(q, whole))
            read = {(sample.labels[named], sample.labels["feed"]): sample.value for sample in found}
            for leg in legs:
                for number, (_, feed) in enumerate(labels):
                    mine = messages[(messages["label"] == number) & (messages["legs"] >> leg & 1 == 1)]
                    if not len(mine):
                        continue
                    name = leg.name.lower()
                    assert counted[name, feed] == len(mine)
                    values_ns = mine["leg_ns"][:, leg]
                    rows.append(compared(_REPLAY, f"{name} {feed}", values_ns, q, read[name, feed]))
    return rows
