# SPDX-License-Identifier: Apache-2.0
"""What every test shares: the package under test is the installed one, also in the processes that tests start."""

import os

# Else `python -c` in the checkout would import the tree, which has no native parts.
os.environ["PYTHONSAFEPATH"] = "1"
