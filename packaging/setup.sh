#!/usr/bin/env bash
# Brings a machine and this checkout's .venv to what running (setup.sh run) or testing
# (setup.sh test) needs, or installs the service on a server (setup.sh server). Idempotent; the
# second call only compares digests. As root it installs missing Debian packages; without root it
# says in one sentence what is missing.
# pip and apt are used as the machine has them configured; every Python package is locked by hash.
set -euo pipefail
cd "$(dirname "$0")/.."
purpose=${1:?usage: setup.sh run|test|server}

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

digest_of() {
    cat packaging/setup.sh pyproject.toml requirements.in "$@" | sha256sum
}
ensure_environment() {  # DIRECTORY PIP-OPTION...: a virtual environment with the locks and us
    local environment=$1; shift
    local -a locks=(requirements-build.lock requirements.lock)
    local stamp=$environment/.locked-$purpose digest running
    running=$(digest_of "${locks[@]}")
    [ "$purpose" = test ] && locks+=(requirements-dev.lock)
    digest=$(digest_of "${locks[@]}")
    if [ "$(cat "$stamp" 2>/dev/null)" = "$digest" ] && "$environment/bin/python" -c ''; then
        return
    fi
    if ! "$environment/bin/python" -c '' 2>/dev/null; then
        local python
        python=$(find_python) || stop "no Python 3.11 or later with venv"
        say "creating $environment with $python"
        "$python" -m venv --clear "$environment"
    fi
    local pip=("$environment/bin/python" -m pip --disable-pip-version-check -q install)
    say "installing locked requirements: ${locks[*]}"
    "${pip[@]}" --require-hashes -r requirements-build.lock
    # The one requirement without a wheel is built by the setuptools just locked, not by another.
    "${pip[@]}" --require-hashes --no-build-isolation --use-pep517 \
        "${locks[@]/#/--requirement=}"
    "${pip[@]}" --no-build-isolation --no-deps --no-index "$@"
    printf '%s\n' "$digest" >"$stamp"
    printf '%s\n' "$running" >"$environment/.locked-run"   # testing includes running
}

ensure_server() {
    is_root || stop "the service is installed by root; run 'sudo make install'"
    [ -d /run/systemd/system ] || stop "systemd does not run this machine; use 'make run' instead"
    rm -f /usr/lib/appliance/.locked-server   # our own code may have changed where no lock did
    ensure_environment /usr/lib/appliance --force-reinstall .
    install -m 644 -t /etc/systemd/system systemd/*.service systemd/*.target
    install -m 644 systemd/appliance.sysusers /usr/lib/sysusers.d/appliance.conf
    install -m 644 systemd/appliance.tmpfiles /usr/lib/tmpfiles.d/appliance.conf
    install -m 644 -t /etc/udev/rules.d udev/*.rules
    ln -sf /usr/lib/appliance/bin/appliance /usr/local/bin/appliance
    install -d -m 755 /etc/appliance
    [ -e /etc/appliance/appliance.toml ] || install -m 644 /dev/null /etc/appliance/appliance.toml
    systemd-sysusers appliance.conf
    systemd-tmpfiles --create appliance.conf
    systemctl daemon-reload
    udevadm control --reload || stop "udev does not answer; is systemd-udevd running?"
    systemctl -q enable appliance.target appliance-control.service
    local -a gateways
    mapfile -t gateways < <(seq -f 'appliance-gateway@%g.service' 0 $(($(nproc) - 1)))
    systemctl -q add-wants appliance.target "${gateways[@]}"
    say "installed; docs/installation.md says how to configure, start and give it drives"
}

exec 9<packaging/setup.sh
flock 9   # two makes at once: the second finds everything done
ensure_machine
case $purpose in
    run | test) ensure_environment .venv -e . ;;
    server) ensure_server ;;
    *) stop "unknown purpose $purpose; it is run, test or server" ;;
esac
