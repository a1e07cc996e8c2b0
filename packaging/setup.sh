#!/usr/bin/env bash
# Brings a machine and this checkout's .venv to what running (setup.sh run) or testing
# (setup.sh test) needs. Idempotent; the second call only compares digests. As root it installs
# missing Debian packages; without root it says in one sentence what is missing.
# pip and apt are used as the machine has them configured; every Python package is locked by hash.
set -euo pipefail
cd "$(dirname "$0")/.."
purpose=${1:?usage: setup.sh run|test}

# One line per thing that must be there: the program that proves it, and its Debian package.
needed_to_run='mkfs.xfs xfsprogs
udevadm udev
wipefs util-linux
mount mount'
needed_to_test='rclone rclone
restic restic
s3cmd s3cmd
qemu-img qemu-utils
qemu-storage-daemon qemu-system-common
fusermount3 fuse3
strace strace
systemd-analyze systemd
mmdebstrap mmdebstrap
parted parted
mdadm mdadm
fio fio
openssl openssl
unshare util-linux'
block_drivers=qemu-block-extra   # a set of libraries, so no program proves it

say() { printf 'setup: %s\n' "$*"; }
stop() { printf 'setup: cannot go on: %s\n' "$*" >&2; exit 1; }
is_root() { [ "$(id -u)" = 0 ]; }
has_program() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }
python_works() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}
find_python() {
    local candidate
    for candidate in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
        if python_works "$candidate"; then command -v "$candidate"; return; fi
    done
    return 1
}
missing_packages() {  # of the lines "program package" on standard input
    local program package
    while read -r program package; do
        has_program "$program" || printf '%s\n' "$package"
    done | sort -u
}
install_packages() {
    say "installing Debian packages: $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update >/dev/null || stop "apt-get update failed; see its message above"
    # Started services have no place on a build or test machine, least of all mdadm's monitor.
    apt-get -q install -y --no-install-recommends -o Dpkg::Use-Pty=0 "$@" >/dev/null \
        || stop "apt-get could not install $*; see its message above"
}

ensure_machine() {
    local -a packages=()
    find_python >/dev/null || packages+=(python3 python3-venv)
    [ -e /etc/ssl/certs/ca-certificates.crt ] || packages+=(ca-certificates)
    if ! is_root; then
        [ ${#packages[@]} = 0 ] \
            || stop "${packages[*]} missing; run 'apt-get install ${packages[*]}' as root first"
        local later
        later=$(missing_packages <<<"$needed_to_run" | xargs)
        [ -z "$later" ] || say "without root: no disk can be a drive here (missing: $later)"
        return
    fi
    mapfile -t -O ${#packages[@]} packages < <(missing_packages <<<"$needed_to_run")
    if [ "$purpose" = test ]; then
        mapfile -t -O ${#packages[@]} packages < <(missing_packages <<<"$needed_to_test")
        dpkg -s "$block_drivers" >/dev/null 2>&1 || packages+=("$block_drivers")
    fi
    [ ${#packages[@]} = 0 ] && return
    has_program apt-get || stop "this is no Debian; install the equivalent of: ${packages[*]}"
    install_packages "${packages[@]}"
}

wanted_digest() {
    cat packaging/setup.sh pyproject.toml "$@" | sha256sum | cut -d' ' -f1
}
ensure_environment() {
    local -a locks=(requirements-build.lock requirements.lock)
    [ "$purpose" = test ] && locks+=(requirements-dev.lock)
    local stamp=.venv/.locked-$purpose digest
    digest=$(wanted_digest "${locks[@]}" requirements.in)
    if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$digest" ]; then return; fi
    if ! .venv/bin/python -c '' 2>/dev/null; then
        local python
        python=$(find_python) || stop "no Python 3.11 or later with venv"
        say "creating .venv with $python"
        "$python" -m venv --clear .venv
    fi
    local pip=(.venv/bin/python -m pip --disable-pip-version-check -q install)
    say "installing locked requirements: ${locks[*]}"
    "${pip[@]}" --require-hashes -r requirements-build.lock
    # The one requirement without a wheel is built by the setuptools just locked, not by another.
    "${pip[@]}" --require-hashes --no-build-isolation --use-pep517 \
        "${locks[@]/#/--requirement=}"
    "${pip[@]}" --no-build-isolation --no-deps --no-index -e .
    printf '%s\n' "$digest" >"$stamp"
}

exec 9<packaging/setup.sh
flock 9   # two makes at once: the second finds everything done
ensure_machine
ensure_environment
