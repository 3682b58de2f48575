"""``python -m tests.monitoring [FILE…]``: writes dashboards the way they stand in the repository. What Grafana exports
is the same, with each bracket on a line of its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.monitoring.shipped import DASHBOARDS, written

for path in [Path(name) for name in sys.argv[1:]] or DASHBOARDS:
    path.write_text(written(json.loads(path.read_text())))
