# SPDX-License-Identifier: Apache-2.0
"""Grafana dashboards as typed Python: `python -P -m boards` writes the JSON that is committed beside this package.

Imports nothing of tickpath: what joins the two are the metric names of docs/metrics.md, and a test compares them.
"""
