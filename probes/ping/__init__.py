# SPDX-License-Identifier: Apache-2.0
"""The active prober: ICMP, UDP and TCP pings whose round trip is the wire's, as far as this host can stamp it."""
