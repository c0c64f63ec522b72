# SPDX-License-Identifier: Apache-2.0
"""Write every dashboard's JSON and every runbook's page: `make dashboards`."""

from boards.files import files
from boards.runbooks import runbooks

for path, text in (*files(), *runbooks()):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
