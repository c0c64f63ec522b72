# SPDX-License-Identifier: Apache-2.0
"""The blame test: a stall put into one step of every other message moves that step's part and no other."""
