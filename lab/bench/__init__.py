# SPDX-License-Identifier: Apache-2.0
"""`make bench`: every figure that DESIGN promises, beside its yardstick in the same run; README.md says how."""
