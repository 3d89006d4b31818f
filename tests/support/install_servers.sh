#!/bin/sh
# Installs what some tests need and no wheel holds, servers and a clock that can be set, where that can be done without
# asking: as root, on Debian and its kin. Elsewhere those tests are skipped and say so.
set -eu
missing=""
command -v redis-server >/dev/null || missing="$missing redis-server"
command -v rabbitmq-server >/dev/null || [ -x /usr/sbin/rabbitmq-server ] || missing="$missing rabbitmq-server"
ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || missing="$missing libfaketime"
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "not installed:$missing; the tests that need them are skipped"
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
# shellcheck disable=SC2086 # one word a package
{ apt-get update -qq && apt-get install -qq --yes --no-install-recommends $missing; } >/dev/null ||
    echo "could not be installed:$missing; the tests that need them are skipped"
