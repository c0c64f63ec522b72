# SPDX-License-Identifier: Apache-2.0
"""Pings against the truth wire, and beside other pingers."""
