"""What users install: the sdist, the wheel that is built from it, in an empty environment outside the checkout."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from support.servers import Server, redis_binary, valkey_binary

CHECKOUT = Path(__file__).parents[2]


def run(*command: object, folder: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist, as every user's pip would; git's files only, so that nothing comes in by chance."""
    folder = tmp_path_factory.mktemp("built")
    files = run("git", "ls-files", "--cached", "--others", "--exclude-standard", folder=CHECKOUT).splitlines()
    with tarfile.open(folder / "tree.tar", "w") as tree:
        for file in files:
            if (CHECKOUT / file).exists():
                tree.add(CHECKOUT / file, file, recursive=False)
    with tarfile.open(folder / "tree.tar") as tree:
        tree.extractall(folder / "tree", filter="fully_trusted")
    run(sys.executable, "-m", "build", "--installer", "uv", folder / "tree", "--outdir", folder, folder=folder)
    assert len(list(folder.glob("*.tar.gz"))) == 1
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("empty") / "env"
    run("uv", "venv", "--quiet", "--python", sys.executable, folder, folder=wheel.parent)
    interpreter = folder / "bin" / "python"
    run("uv", "pip", "install", "--quiet", "--python", interpreter, wheel, folder=wheel.parent)
    return interpreter


def test_the_wheel_holds_the_linked_folders(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "steindamm/py.typed" in names
    assert {path.name for path in (CHECKOUT / "lua").glob("*.lua")} == {
        name.rpartition("/")[2] for name in names if name.startswith("steindamm/lua/")
    }
    assert "steindamm/integrations/celery/task.py" in names
    assert not [name for name in names if not name.startswith(("steindamm/", "steindamm-"))]


def test_local_limiters_need_nothing_installed(python: Path, tmp_path: Path) -> None:
    code = """
import asyncio, importlib.util, steindamm
assert importlib.util.find_spec("redis") is None
with steindamm.SyncTokenBucket("a"), steindamm.SyncSemaphore("b"):
    pass
async def main():
    async with steindamm.AsyncTokenBucket("a"), steindamm.AsyncSemaphore("b"):
        print("entered")
asyncio.run(main())
try:
    steindamm.SyncTokenBucket("a", connection="redis://localhost")
except ImportError as error:
    print(error)
"""
    said = run(python, "-c", code, folder=tmp_path)
    assert said.splitlines() == [
        "entered",
        'a limiter with a connection needs redis-py: pip install "steindamm[redis]"',
    ]


def test_limiters_on_redis_need_redis_py_only(python: Path, wheel: Path, tmp_path: Path) -> None:
    run("uv", "pip", "install", "--quiet", "--python", python, f"{wheel}[redis]", folder=tmp_path)
    code = """
import sys
from steindamm import SyncSemaphore, SyncTokenBucket
bucket, slots = SyncTokenBucket("a", connection=sys.argv[1]), SyncSemaphore("b", connection=sys.argv[1])
with bucket as permit, slots:
    print(type(bucket).__name__, permit.cost)
"""
    with Server(redis_binary() or valkey_binary(), tmp_path) as server:
        assert run(python, "-c", code, server.url, folder=tmp_path).strip() == "SyncRedisTokenBucket 1.0"
