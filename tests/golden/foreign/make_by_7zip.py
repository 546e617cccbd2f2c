"""Write class folders as a zip archive by 7-zip, for the tests of formats.

    apt-get install 7zip
    python tests/golden/foreign/make_by_7zip.py

writes `written_by_7zip.zip` beside this file: the pictures of `pictures.json` in class folders.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
NAMES = ["cat", "dog", "owl"]


def main() -> None:
    program = sys.argv[1] if len(sys.argv) > 1 else "7zz"
    told = json.loads((HERE / "pictures.json").read_text())
    archive = HERE / "written_by_7zip.zip"
    archive.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for i, (label, content) in enumerate(zip(told["labels"], told["pictures"], strict=True)):
            (root / NAMES[label]).mkdir(exist_ok=True)
            (root / NAMES[label] / f"{i}.png").write_bytes(bytes.fromhex(content))
        subprocess.run([program, "a", "-tzip", "-mx=9", archive, *NAMES], cwd=root, check=True)


if __name__ == "__main__":
    main()
