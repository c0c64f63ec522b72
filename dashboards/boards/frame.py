# SPDX-License-Identifier: Apache-2.0
"""What all dashboards share: uid, variables, links to one another, the grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard

from boards.panels import DATASOURCE
from boards.queries import Dialect, Histograms, selector

REGION = 'region=~"$region"'
INSTANCE = 'instance=~"$instance"'
VENUE = 'venue=~"$venue"'
FEED = 'feed=~"$feed"'
HERE = selector(REGION, INSTANCE)
"""What the chosen hosts say of themselves."""
NO_MESSAGES = (
    "No messages in this range. A feed (`tickpath feed`) brings them; tickpath_messages_total says whether it runs, "
    "tickpath_producer_up whether its ring is written."
)
NO_WIRE = (
    "No message of these has a wire stamp of its byte: needs `tickpath probe wire` (or the socket's own stamps). "
    "tickpath_missing_hop_total names the reason."
)
NO_KERNEL = "Needs `tickpath probe kernel` on the host; tickpath_missing_hop_total names the reason."
NEVER_COUNTED = "Nothing of this kind was ever counted: a counter appears when it is first touched."


def messages(*more: str) -> str:
    """The chosen feeds' messages on the chosen hosts."""
    return selector(REGION, INSTANCE, VENUE, FEED, *more)


def span(name: str) -> str:
    """The same, of a span."""
    return messages(f'span="{name}"')


class Name(StrEnum):
    """The dashboards; the value is the file's name and part of the uid."""

    FLEET = "fleet"
    REGION = "region"
    FEED = "feed"
    CLOCKS = "clocks"
    CAPTURE = "capture"


TITLES = {
    Name.FLEET: "Fleet",
    Name.REGION: "Region",
    Name.FEED: "Feed",
    Name.CLOCKS: "Clocks and probes",
    Name.CAPTURE: "Capture",
}


@dataclass(frozen=True)
class Row:
    """A heading and the panels below it, which fill lines of 24 columns from the left."""

    title: str
    panels: Sequence[Builder[dashboard.Panel]]


@dataclass(frozen=True)
class Frame:
    """One dialect's set of dashboards, which link to one another and to none of the other set."""

    dialect: Dialect

    @property
    def histograms(self) -> Histograms:
        """Queries over histograms in this dialect."""
        return Histograms(self.dialect)

    def uid(self, name: Name) -> str:
        """Of a dashboard of this set; part of every link to it."""
        return f"tickpath-{name}" if self.dialect is Dialect.NATIVE else f"tickpath-{name}-classic"

    def make(
        self, name: Name, meaning: str, variables: Sequence[Builder[dashboard.VariableModel]], rows: Sequence[Row]
    ) -> dashboard.Dashboard:
        """The dashboard as Grafana loads it."""
        classic = "" if self.dialect is Dialect.NATIVE else " (classic buckets)"
        board = (
            build.Dashboard(f"tickpath: {TITLES[name]}{classic}")
            .uid(self.uid(name))
            .description(meaning)
            .tags(["tickpath", f"tickpath-{self.dialect}"])
            .readonly()
            .time("now-1h", "now")
            .refresh("30s")
            .timezone("browser")
            .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
            .with_variable(build.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        )
        for variable in variables:
            board = board.with_variable(variable)
        for row in rows:
            board = board.with_row(build.Row(row.title))
            for panel in row.panels:
                board = board.with_panel(panel)
        made = board.build()
        made.links = [self._link(other) for other in Name if other is not name]
        # A panel's number is part of links to it.
        for number, one in enumerate(made.panels or [], start=1):
            one.id_val = number
        return made

    def _link(self, other: Name) -> dashboard.DashboardLink:
        link = build.DashboardLink(TITLES[other]).url(f"/d/{self.uid(other)}").keep_time(True).include_vars(True)
        made = link.type(dashboard.DashboardLinkType.LINK).icon("dashboard").build()
        # The SDK's default hides links in a menu. Without a placement they stand above the panels, in any version.
        made.placement = None  # type: ignore[assignment]
        return made


def variable(name: str, metric: str, *matchers: str, label: str = "", multi: bool = True) -> build.QueryVariable:
    """A variable that takes the values which label `name` has on a metric; `multi`: any number of them, or all."""
    query = f"label_values({metric}{selector(*matchers)}, {name})"
    made = (
        build.QueryVariable(name)
        .label(label or name.capitalize())
        .datasource(DATASOURCE)
        .query({"query": query, "refId": f"variable-{name}", "qryType": 1})
        .definition(query)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .multi(multi)
        .include_all(multi)
    )
    if multi:
        made = made.all_value(".*").current(dashboard.VariableOption(selected=True, text=["All"], value=["$__all"]))
    return made


def regions(*, multi: bool) -> build.QueryVariable:
    """The region, which every scraped target carries as a label."""
    return variable("region", "tickpath_build_info", multi=multi)


def instances() -> build.QueryVariable:
    """The hosts of the chosen regions."""
    return variable("instance", "tickpath_build_info", REGION, label="Host")


def feeds(*matchers: str) -> list[build.QueryVariable]:
    """Venues, and the feeds of the chosen ones."""
    return [
        variable("venue", "tickpath_messages_total", *matchers),
        variable("feed", "tickpath_messages_total", *matchers, VENUE),
    ]
