"""Labs are brought up as the tests in network namespaces do."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "netns"))
