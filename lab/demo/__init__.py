# SPDX-License-Identifier: Apache-2.0
"""The demo: simulator, feeds, probes and exporter as the separate processes that they are, on this host, until stopped."""
