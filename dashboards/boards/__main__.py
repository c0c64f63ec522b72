# SPDX-License-Identifier: Apache-2.0
"""Write every dashboard's JSON: `make dashboards`."""

from boards.files import files

for path, text in files():
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
