"""A private RabbitMQ: ports, a folder and a port mapper of its own; it ends with the test run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from support.servers import HOST, free_port

PATIENCE = 90.0
PLACES = ("/usr/lib/rabbitmq/bin", "/usr/local/sbin", "/opt/rabbitmq/sbin", "/usr/sbin", "/opt/homebrew/sbin")


def rabbitmq_binary() -> str | None:
    """The server's own script; what Debian has in the path of root would change the user."""
    return shutil.which("rabbitmq-server", path=os.pathsep.join(PLACES)) if shutil.which("epmd") else None


class RabbitMQ:
    """A RabbitMQ process, started when it is made.

    Parameters:
        binary: The program.
        folder: Where it keeps its files.
    """

    def __init__(self, binary: str, folder: Path) -> None:
        self.port = free_port()
        self.url = self.url_at(self.port)
        self._log = folder / "output.log"
        self._pid_file = folder / "pid"
        mapper_port = str(free_port())
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ", "ERL"))},
            "HOME": str(folder),
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_PORT": mapper_port,
            "RABBITMQ_NODENAME": f"steindamm{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(self._pid_file),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
        }
        (folder / "rabbitmq.conf").write_text("loopback_users.guest = true\n")
        (folder / "plugins").write_text("[].\n")
        self._processes = [
            self._start(["epmd", "-port", mapper_port, "-address", HOST], environment),
            self._start([binary], environment),
        ]
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    @staticmethod
    def url_at(port: int) -> str:
        """Where it is reached by this port, its own or that of a proxy."""
        return f"amqp://guest:guest@{HOST}:{port}"

    def _start(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            last_words = self._log.read_text(errors="replace")[-2000:]
            assert self._processes[-1].poll() is None, f"RabbitMQ has ended:\n{last_words}"
            assert time.monotonic() < deadline, f"RabbitMQ does not answer:\n{last_words}"
            time.sleep(0.2)

    def answers(self) -> bool:
        import pika

        try:
            pika.BlockingConnection(pika.URLParameters(self.url)).close()
        except (pika.exceptions.AMQPError, OSError):
            return False
        return True

    def stop(self) -> None:
        """End it, and all that it started: first the machine, then the script that waits for it, then the mapper."""
        with suppress(OSError, ValueError, subprocess.TimeoutExpired):
            os.kill(int(self._pid_file.read_text()), signal.SIGKILL)
            self._processes[-1].wait(PATIENCE)
        for process in reversed(self._processes):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
