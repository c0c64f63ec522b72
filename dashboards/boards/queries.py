# SPDX-License-Identifier: Apache-2.0
"""PromQL in two dialects: over native histograms, and over the classic buckets of the text formats."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

HOP = "tickpath_hop_latency_seconds"
PART = "tickpath_hop_part_latency_seconds"
SPAN = "tickpath_span_latency_seconds"
CONNECT = "tickpath_connect_latency_seconds"
PING = "tickpath_ping_rtt_seconds"
PING_PATH = "tickpath_ping_path_seconds"
PING_WAY = "tickpath_ping_oneway_seconds"
_NEGATIVE = "tickpath_negative_latency_seconds"
# In which label the family of negative times keeps apart what the others do by name.
_OF_NEGATIVE = {HOP: 'hop!="",part=""', PART: 'part!=""', SPAN: 'span!=""', PING_WAY: 'direction!=""'}
_WINDOW = "[$__rate_interval]"


class Dialect(StrEnum):
    """How the Prometheus that is asked has scraped the exporter."""

    NATIVE = "native"
    CLASSIC = "classic"


def selector(*matchers: str) -> str:
    """`{a,b}`; matchers that are empty are left out."""
    kept = ",".join(matcher for matcher in matchers if matcher)
    return f"{{{kept}}}" if kept else ""


def per_second(metric: str, where: str = "", by: str = "") -> str:
    """A counter's rate, added up over what `by` does not name."""
    return f"{_sum(by)} (rate({metric}{where}{_WINDOW}))"


def over_window(metric: str, where: str = "", by: str = "") -> str:
    """How much a counter rose in the window."""
    return f"{_sum(by)} (increase({metric}{where}{_WINDOW}))"


def _sum(by: str) -> str:
    return f"sum by ({by})" if by else "sum"


@dataclass(frozen=True)
class Histograms:
    """Queries over latency histograms. `where` is a selector, `by` the labels that stay."""

    dialect: Dialect

    @property
    def native(self) -> bool:
        """Whether one sample is a whole histogram, negative values included."""
        return self.dialect is Dialect.NATIVE

    def quantile(self, quantile: float, metric: str, where: str, by: str) -> str:
        """A quantile; classic: interpolated between thresholds that lie a factor of four apart, values from 0 up."""
        if self.native:
            return f"histogram_quantile({quantile}, {per_second(metric, where, by)})"
        return f"histogram_quantile({quantile}, {per_second(f'{metric}_bucket', where, f'{by}, le' if by else 'le')})"

    def count(self, metric: str, where: str, by: str) -> str:
        """Messages a second, those with a negative time included."""
        if self.native:
            return f"histogram_count({per_second(metric, where, by)})"
        return self._signed(metric, "count", "+", where, by)

    def average(self, metric: str, where: str, by: str) -> str:
        """The signed average; averages of hops that the same messages have add up."""
        if self.native:
            rate = per_second(metric, where, by)
            return f"histogram_sum({rate}) / histogram_count({rate})"
        return f"({self._signed(metric, 'sum', '-', where, by)}) / ({self._signed(metric, 'count', '+', where, by)})"

    def _signed(self, metric: str, suffix: str, sign: str, where: str, by: str) -> str:
        """Both sides of zero; a side without a series counts as zero."""
        above = per_second(f"{metric}_{suffix}", where, by)
        of_negative = _OF_NEGATIVE.get(metric)
        if of_negative is None:
            return above
        below_where = selector(of_negative, where.strip("{}"))
        below = per_second(f"{_NEGATIVE}_{suffix}", below_where, by)
        return f"{above} {sign} ({below} or 0 * {above})"

    def share_above(self, threshold_s: float, metric: str, where: str, by: str) -> str:
        """Share of the messages above a threshold, which must be one of the classic ones: both dialects count then."""
        if self.native:
            return f"1 - histogram_fraction(-Inf, {threshold_s}, {per_second(metric, where, by)})"
        below = per_second(f"{metric}_bucket", selector(where.strip("{}"), f'le="{threshold_s}"'), by)
        return f"1 - {below} / {per_second(f'{metric}_count', where, by)}"

    def share_negative(self, metric: str, where: str, by: str) -> str:
        """Share of the messages whose time came out negative."""
        if self.native:
            return f"histogram_fraction(-Inf, 0, {per_second(metric, where, by)})"
        below = per_second(f"{_NEGATIVE}_count", selector(_OF_NEGATIVE[metric], where.strip("{}")), by)
        above = per_second(f"{metric}_count", where, by)
        return f"({below} or 0 * {above}) / ({self.count(metric, where, by)})"

    def heat(self, metric: str, where: str) -> str:
        """What a heatmap is drawn from."""
        return per_second(metric, where) if self.native else per_second(f"{metric}_bucket", where, "le")

    def heat_above_zero(self, metric: str, where: str) -> str:
        """The same; nothing where every value is 0."""
        whole = f"histogram_sum({per_second(metric, where)})" if self.native else per_second(f"{metric}_sum", where)
        return f"{self.heat(metric, where)} and on () {whole} > 0"
