# SPDX-License-Identifier: Apache-2.0
"""The kernel probe: when TCP made each byte readable on its socket, and when it had copied it to user space."""
