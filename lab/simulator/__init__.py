# SPDX-License-Identifier: Apache-2.0
"""A simulated exchange: Binance-shaped WebSocket feeds replayed from recordings or generated.

From outside: `config.SimulatorConfig` says what to play, `server.Simulator` plays it, `truth.Sent` is what was sent,
to the byte. No code of the probes or the exporter is used here: the simulator is the oracle that they are tested by.
"""
