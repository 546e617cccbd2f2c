"""Fetches what the tests need from Debian's packages, into the cache, without becoming root.

    python tests/packages.py

apt checks signatures and hashes, and `dpkg -x` unpacks without installing. Where there is no apt,
it says what to put where.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from deepcnn.data.fetch import default_data_dir

FASHION_MNIST = "dataset-fashion-mnist"
CHROMIUM = "chromium"
# And what is needed of each. Chromium runs from where it is unpacked, with the libraries beside it.
PACKAGES = {FASHION_MNIST: "usr/share/datasets/fashion-mnist", CHROMIUM: "usr/lib/chromium"}
PROGRAMS = (CHROMIUM,)  # packages that need their libraries, and nothing where they are installed


def unpacked(package: str) -> Path:
    """Return where what is needed of a package lies once `main` has run."""
    return default_data_dir() / "debian" / package / PACKAGES[package]


def libraries(package: str) -> Path:
    """Return where the libraries of an unpacked program lie, of those that the system lacks."""
    folders = sorted((default_data_dir() / "debian" / package / "usr/lib").glob("*-linux-gnu*"))
    return folders[0] if folders else unpacked(package)


def is_there(package: str) -> bool:
    """Tell whether a package was unpacked, or is a program that the system has."""
    return unpacked(package).exists() or (package in PROGRAMS and shutil.which(package) is not None)


def main() -> int:
    """Fetch and unpack all that is missing."""
    for package in PACKAGES:
        if not is_there(package):
            if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
                print(
                    f"There is no apt here to fetch Debian's package {package} with. Put what it "
                    f"has in /{PACKAGES[package]} into {unpacked(package)}",
                    file=sys.stderr,
                )
                return 1
            fetch(package)
    return 0


def fetch(package: str) -> None:
    """Download and unpack a package beside its final place, then give it its name."""
    target = default_data_dir() / "debian" / package
    scratch = target.with_name(f".{package}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    for folder in ("lists/partial", "cache/archives/partial", "content"):
        (scratch / folder).mkdir(parents=True)
    apt = [
        *("apt-get", "--quiet", "--quiet"),
        *("-o", f"Dir::State::lists={scratch / 'lists'}"),  # own lists, for others need root
        *("-o", f"Dir::Cache={scratch / 'cache'}"),
        *("-o", "APT::Sandbox::User=root"),
        *("-o", "Debug::NoLocking=1"),  # the system's own packages are only looked at
    ]
    print(f"Fetching Debian's package {package}", flush=True)
    subprocess.run([*apt, "update"], check=True)
    if package in PROGRAMS:
        get = ["install", "--download-only", "--no-install-recommends", "--yes", package]
    else:
        get = ["download", package]
    subprocess.run([*apt, *get], check=True, cwd=scratch)
    for archive in sorted([*scratch.glob("*.deb"), *scratch.glob("cache/archives/*.deb")]):
        subprocess.run(["dpkg", "-x", archive, scratch / "content"], check=True)
    shutil.rmtree(target, ignore_errors=True)
    (scratch / "content").rename(target)
    shutil.rmtree(scratch)


if __name__ == "__main__":
    sys.exit(main())
