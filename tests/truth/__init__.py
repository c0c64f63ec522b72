# SPDX-License-Identifier: Apache-2.0
"""The truth test: scenarios over the truth wire, a model of what must come out, and the verdict on every message."""
