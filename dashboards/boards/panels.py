# SPDX-License-Identifier: Apache-2.0
"""The kinds of panel that the dashboards are made of; none comes without a unit, a meaning and a word for empty."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from grafana_foundation_sdk.builders import common as build_common
from grafana_foundation_sdk.builders import dashboard as build_dashboard
from grafana_foundation_sdk.builders import heatmap as build_heatmap
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common, dashboard, heatmap
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
SECONDS = "s"
PER_SECOND = "cps"
SHARE = "percentunit"
COUNT = "short"

# A hop has one colour, whatever else a panel shows.
_HOPS = {"bn_to_nic": "blue", "nic_to_kernel": "purple", "kernel_to_user": "orange", "cpu": "yellow", "msk": "green"}
# An axis shows this much at least: else a line of zeros lies below a hundred seconds, or ten thousand per cent.
_SMALLEST = {SECONDS: 0.001, PER_SECOND: 1, SHARE: 0.01, COUNT: 1, "bytes": 1e6, "ppm": 1}

Levels = tuple[tuple[float, str], ...]
"""From this value on, this colour; green below all of them."""
# The classic thresholds: 0.98 ms and 15.6 ms in the host are what an operator looks into and what hurts.
LATENCY: Levels = ((0.0009765625, "yellow"), (0.015625, "red"))
ANY: Levels = ((1e-9, "red"),)
SOME: Levels = ((0.001, "yellow"), (0.05, "red"))
BUSY: Levels = ((0.7, "yellow"), (0.9, "red"))
NONE: Levels = ()


@dataclass(frozen=True)
class Query:
    """One PromQL expression and how what it returns is called."""

    expr: str
    legend: str = ""
    exemplar: bool = False


@dataclass(frozen=True, kw_only=True)
class About:
    """What every panel has to say: `empty` is shown where there is no data, and names what would bring some."""

    title: str
    meaning: str
    empty: str
    unit: str = SECONDS
    levels: Levels = LATENCY
    width: int = 12
    height: int = 8


@dataclass(frozen=True)
class Column:
    """A column of a table of one row per label set."""

    name: str
    expr: str
    unit: str
    levels: Levels = field(default=NONE)


# How a line looks that the others are held against. Thresholds are thinner, and coloured.
_BESIDE = [
    dashboard.DynamicConfigValue("custom.lineWidth", 2),
    dashboard.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 6]}),
    dashboard.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": "text"}),
]
# Of a classic histogram: its family is what the docs name.
_SUFFIX = re.compile(r"(?<=_seconds)_(?:bucket|sum|count)$")


def thresholds(levels: Levels) -> build_dashboard.ThresholdsConfig:
    """Green, then each level's colour from its value on."""
    steps = [dashboard.Threshold(color="green"), *(dashboard.Threshold(value, color) for value, color in levels)]
    return build_dashboard.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)


def no_value(empty: str, exprs: Iterable[str]) -> str:
    """What an empty panel says: why, and the metrics that would fill it, as docs/metrics.md names them."""
    named = dict.fromkeys(name for expr in exprs for name in re.findall(r"\b(?:tickpath|process)_\w+|\bALERTS\b", expr))
    wanted = [name for name in dict.fromkeys(_SUFFIX.sub("", name) for name in named) if name not in empty]
    return f"{empty} ({', '.join(wanted)})" if wanted else empty


def region_link(uid: str) -> build_dashboard.DashboardLink:
    """From a series with a label `region` to that region's dashboard: same time, same datasource."""
    url = f"/d/{uid}?${{__url_time_range}}&${{datasource:queryparam}}&var-region=${{__field.labels.region}}"
    return build_dashboard.DashboardLink("Region ${__field.labels.region}").url(url)


def _ref(number: int) -> str:
    return chr(ord("A") + number)


def _numbers(expr: str) -> str:
    """Without what is no number: a panel would take a quantile or a share of nothing for data, and not be empty."""
    return f"({expr}) > -Inf" if "histogram_" in expr or " / " in expr else expr


def _targets(queries: Sequence[Query]) -> list[Builder[Dataquery]]:
    made: list[Builder[Dataquery]] = []
    for number, query in enumerate(queries):
        target = prometheus.Dataquery().expr(_numbers(query.expr)).ref_id(_ref(number)).datasource(DATASOURCE)
        target = target.legend_format(query.legend or "__auto").exemplar(query.exemplar)
        made.append(target.range())
    return made


def lines(about: About, *queries: Query, log: bool = False, links: Sequence[str] = ()) -> timeseries.Panel:
    """Lines over time, never stacked. With `log` on a scale of powers of ten from 1 µs up."""
    legend = (
        build_common.VizLegendOptions()
        .show_legend(True)
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.RIGHT if about.width > 9 else common.LegendPlacement.BOTTOM)
        .calcs(["lastNotNull", "max"])
    )
    if len(queries) > 1 and about.unit == COUNT:
        # Most of these are zero, and a legend shows the first ones.
        legend = legend.sort_by("Max").sort_desc(True)
    panel = (
        timeseries.Panel()
        .title(about.title)
        .description(about.meaning)
        .datasource(DATASOURCE)
        .unit(about.unit)
        .no_value(no_value(about.empty, (query.expr for query in queries)))
        .thresholds(thresholds(about.levels))
        .color_scheme(build_dashboard.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC))
        .thresholds_style(build_common.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED))
        .span(about.width)
        .height(about.height)
        .line_width(1)
        .fill_opacity(0)
        .show_points(common.VisibilityMode.AUTO)
        .legend(legend)
        .tooltip(
            build_common.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
        )
        .targets(_targets(queries))
    )
    if any(query.legend == "{{hop}}" for query in queries):
        for hop, colour in _HOPS.items():
            fixed = dashboard.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})
            panel = panel.override_by_name(hop, [fixed])
    if links:
        panel = panel.data_links([region_link(uid) for uid in links])
    if log:
        # Not a plain one, which has no place for 0 (a wait that was none) or below (a clock that is behind).
        scale = build_common.ScaleDistributionConfig().type(common.ScaleDistribution.SYMLOG).log(10)
        panel = panel.scale_distribution(scale.linear_threshold(1e-6))
    else:
        panel = panel.axis_soft_min(0).axis_soft_max(_SMALLEST.get(about.unit, 0.001))
    return panel


def bounded(about: About, values: Sequence[Query], bound: Query) -> timeseries.Panel:
    """Lines over time on the scale of `log`, and dashed how far they may be off."""
    return lines(about, *values, bound, log=True).override_by_query(_ref(len(values)), _BESIDE)


def stacked(about: About, parts: Sequence[Query], whole: Query) -> timeseries.Panel:
    """Values that add up, the first one lowest, and beside them the line that they should add up to."""
    over = [
        dashboard.DynamicConfigValue("custom.stacking", {"mode": "none", "group": "A"}),
        dashboard.DynamicConfigValue("custom.fillOpacity", 0),
        *_BESIDE,
    ]
    return (
        lines(about, *parts, whole)
        .stacking(build_common.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
        .fill_opacity(60)
        .override_by_query(_ref(len(parts)), over)
    )


def number(about: About, query: Query) -> stat.Panel:
    """One figure per series, now, coloured by its level."""
    return (
        stat.Panel()
        .title(about.title)
        .description(about.meaning)
        .datasource(DATASOURCE)
        .unit(about.unit)
        .no_value(no_value(about.empty, [query.expr]))
        .thresholds(thresholds(about.levels))
        .color_scheme(build_dashboard.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.AREA)
        .reduce_options(build_common.ReduceDataOptions().calcs(["lastNotNull"]))
        .span(about.width)
        .height(about.height)
        .targets(_targets((query,)))
    )


def heat(about: About, expr: str) -> build_heatmap.Panel:
    """A heatmap: buckets as the histogram has them, on a scale of powers of two where they are native."""
    target = prometheus.Dataquery().expr(expr).ref_id("A").datasource(DATASOURCE).range()
    return (
        build_heatmap.Panel()
        .title(about.title)
        .description(about.meaning)
        .datasource(DATASOURCE)
        .unit(about.unit)
        .no_value(no_value(about.empty, [expr]))
        .thresholds(thresholds(about.levels))
        .calculate(False)
        .color(
            build_heatmap.HeatmapColorOptions()
            .mode(heatmap.HeatmapColorMode.SCHEME)
            .scheme("Turbo")
            .scale(heatmap.HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .steps(64)
        )
        .y_axis(build_heatmap.YAxisConfig().unit(about.unit).axis_placement(common.AxisPlacement.LEFT))
        .cell_values(build_heatmap.CellValues().unit(PER_SECOND))
        .filter_values(build_heatmap.FilterValueRange().le(1e-9))
        .show_legend()
        .tooltip(build_heatmap.HeatmapTooltip().mode(common.TooltipDisplayMode.SINGLE).y_histogram(True))
        .span(about.width)
        .height(about.height)
        .with_target(target.format(PromQueryFormat.HEATMAP).legend_format("{{le}}").exemplar(True))
    )


def states(about: About, query: Query) -> statetimeline.Panel:
    """What held when: one band per series, 1 green and 0 red."""
    mapping = dashboard.ValueMap(
        options={
            "0": dashboard.ValueMappingResult(text="down", color="red", index=0),
            "1": dashboard.ValueMappingResult(text="up", color="green", index=1),
        }
    )
    return (
        statetimeline.Panel()
        .title(about.title)
        .description(about.meaning)
        .datasource(DATASOURCE)
        .unit(about.unit)
        .no_value(no_value(about.empty, [query.expr]))
        .thresholds(thresholds(about.levels))
        .mappings([mapping])
        .show_value(common.VisibilityMode.NEVER)
        .span(about.width)
        .height(about.height)
        .targets(_targets((query,)))
    )


def rows(about: About, keys: Sequence[str], *columns: Column, links: Sequence[str] = ()) -> table.Panel:
    """A table, now: a row for each set of the labels `keys`, a column for each query."""
    queries: list[Builder[Dataquery]] = []
    for at, column in enumerate(columns):
        target = prometheus.Dataquery().expr(column.expr).ref_id(_ref(at)).datasource(DATASOURCE)
        queries.append(target.format(PromQueryFormat.TABLE).instant().legend_format("__auto"))
    # One query alone gives its column no letter.
    values = ["Value"] if len(columns) == 1 else [f"Value #{_ref(at)}" for at in range(len(columns))]
    names = {value: column.name for value, column in zip(values, columns, strict=True)}
    order = {name: at for at, name in enumerate([*keys, *values])}
    panel = (
        table.Panel()
        .title(about.title)
        .description(about.meaning)
        .datasource(DATASOURCE)
        .unit(about.unit)
        .no_value(no_value(about.empty, (column.expr for column in columns)))
        .thresholds(thresholds(about.levels))
        # Narrower than Grafana's 150 pixels, of which a half or whole width holds too few columns.
        .min_width(90)
        .span(about.width)
        .height(about.height)
        .transformations(
            [
                dashboard.DataTransformerConfig(id_val="merge", options={}),
                dashboard.DataTransformerConfig(
                    id_val="organize",
                    options={"excludeByName": {"Time": True}, "renameByName": names, "indexByName": order},
                ),
            ]
        )
        .targets(queries)
    )
    for column in columns:
        levels = thresholds(column.levels).build().to_json()
        panel = panel.override_by_name(
            column.name,
            [
                dashboard.DynamicConfigValue("unit", column.unit),
                dashboard.DynamicConfigValue("thresholds", levels),
                dashboard.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}),
            ],
        )
    for uid in links:
        link = {
            "title": "Region ${__value.text}",
            "url": f"/d/{uid}?${{__url_time_range}}&${{datasource:queryparam}}&var-region=${{__value.text}}",
        }
        panel = panel.override_by_name("region", [dashboard.DynamicConfigValue("links", [link])])
    return panel
