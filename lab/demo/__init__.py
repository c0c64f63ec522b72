# SPDX-License-Identifier: Apache-2.0
"""The demo: simulator, feeds, probes and exporter on this host, as the separate processes that they are."""
