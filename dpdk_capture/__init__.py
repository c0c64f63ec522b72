# SPDX-License-Identifier: Apache-2.0
"""Captures a NIC that DPDK owns: poll loops in C, their stamps, the port; Python configures, supervises and stops them.

It imports the library tickpath alone. Built only where DPDK's headers are; without them the command says so.
"""
