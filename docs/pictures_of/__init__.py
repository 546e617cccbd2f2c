"""What the pictures of the documents are made of."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path += [str(ROOT), str(ROOT / "records")]  # tests drive Chromium, records read their logs
