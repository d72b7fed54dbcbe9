"""Packages that a bare machine lacks, as wheels that are carried there.

`python -m benchmarks.carried FOLDER --python 3.12` downloads what this environment has of the packages that
`make bench-gpu` imports, without torch, for another Python. There, `make bench-gpu ARGS="--wheels FOLDER"`
unpacks those that are missing.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

NEEDED = (
    "diffusers",
    "transformers",
    "kornia",
    "einops",
    "safetensors",
    "numpy",
    "pillow",
    "protobuf",
    "tqdm",
)
"""What the parts import, beside torch."""
TORCH = "torch"
"""The machine has its own: neither it nor what it needs is carried."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.carried", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="3.12", help="of the machine (default %(default)s)")
    parser.add_argument("--without", nargs="+", default=(), metavar="NAME", help="what the machine has")
    options = parser.parse_args(arguments)
    names = closure(NEEDED, {TORCH, *options.without})
    wanted = [f"{name}=={distribution(name).version}" for name in sorted(names)]
    pip("download", *wanted, "--no-deps", "--only-binary=:all:", "--python-version", options.python,
        "--dest", str(options.folder))  # fmt: skip
    found = wheels(options.folder)
    print(f"{len(found)} wheels, {sum(path.stat().st_size for path in found) / 2**20:.1f} MiB")


def closure(names: Iterable[str], without: set[str]) -> set[str]:
    """The packages, and all of this environment that they need, but for those without which it goes."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found | without and is_here(name):
            found.add(name)
            waiting += requirements(name)
    return found


def requirements(name: str) -> Iterator[str]:
    """Names of what a package needs without its extras."""
    from packaging.requirements import Requirement  # a bare machine has no need of it
    from packaging.utils import canonicalize_name

    for line in distribution(name).requires or ():
        needed = Requirement(line)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            yield canonicalize_name(needed.name)


def is_here(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def wheels(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.whl"))


def unpack(folder: Path, target: Path) -> None:
    """Install those wheels into `target` whose package is missing here. Raises RuntimeError if pip fails.

    Where PyAV is missing, of 34 MB, an empty module takes its place: no part reads or writes a video.
    """
    missing = [str(path) for path in wheels(folder) if not is_here(path.name.split("-")[0])]
    if missing:
        pip("install", "--no-index", "--no-deps", "--target", str(target), *missing)
    if not is_here("av") and not (target / "av").exists():
        target.mkdir(parents=True, exist_ok=True)
        (target / "av.py").touch()


def pip(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments, "--quiet"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"pip {arguments[0]} failed:\n{done.stderr.strip()}")


if __name__ == "__main__":
    main()
