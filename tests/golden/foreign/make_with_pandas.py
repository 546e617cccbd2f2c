"""Write a small set of pictures by pandas, for the tests of formats.

    python -m venv others && others/bin/pip install pandas pyarrow
    others/bin/python tests/golden/foreign/make_with_pandas.py

writes `written_by_pandas_train.parquet` beside this file: the pictures of `pictures.json`, a column
of their bytes and one of labels.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent


def main() -> None:
    told = json.loads((HERE / "pictures.json").read_text())
    pictures = [bytes.fromhex(each) for each in told["pictures"]]
    frame = pd.DataFrame({"image": pictures, "label": told["labels"]})
    frame.to_parquet(HERE / "written_by_pandas_train.parquet", index=False)


if __name__ == "__main__":
    main()
