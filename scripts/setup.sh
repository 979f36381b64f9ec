#!/usr/bin/env bash
# Makes sure that this machine has what `make dev` needs: a C compiler, the PostgreSQL server programs
# (15 or later) and redis-server.
# With the argument `test` also what `make test` needs: libfaketime (tests let a clock jump), libfiu (they
# let a disk fail) and openssl (they make keys). With `bench` what `make bench` needs: wrk and pgbench.
# With `fuzz` what `make fuzz` needs: Python with venv (schemathesis itself comes from PyPI).
#
# On Debian and Ubuntu, as root or where sudo asks no password, what is missing is installed from
# the distribution's packages. No server of the system is created, started, stopped or changed:
# development and tests run servers of their own.
set -euo pipefail

readonly OLDEST_POSTGRES=15
readonly NO_SERVICES=/usr/sbin/policy-rc.d
readonly NO_CLUSTER=/etc/postgresql-common/createcluster.d/holdfast-setup.conf

main() {
    case ${1-} in
        "" | test | bench | fuzz) part=${1-} ;;
        *)
            say "usage: scripts/setup.sh [test|bench|fuzz]"
            exit 2
            ;;
    esac
    if ! command -v cargo >/dev/null; then
        say "cargo is not installed: see https://rustup.rs"
        exit 1
    fi
    find_missing
    if ((${#missing[@]} == 0)); then
        return
    fi
    say "missing here: ${missing[*]}"
    if can_use_apt; then
        install_with_apt
        find_missing
        if ((${#missing[@]} == 0)); then
            say "done"
            return
        fi
        say "this distribution's packages do not bring: ${missing[*]}"
    fi
    advise
    exit 1
}

find_missing() {
    missing=()
    command -v cc >/dev/null || missing+=("C compiler")
    has_postgres || missing+=("PostgreSQL server $OLDEST_POSTGRES or later")
    has_program redis-server || missing+=("redis-server")
    if [[ $part == test ]]; then
        has_library faketime/libfaketimeMT.so.1 || missing+=("libfaketime")
        has_fiu || missing+=("libfiu")
        has_program openssl || missing+=("openssl")
    fi
    if [[ $part == bench ]]; then
        has_program wrk || missing+=("wrk")
        has_postgres_program pgbench || missing+=("pgbench")
    fi
    if [[ $part == fuzz ]]; then
        python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=("Python with venv")
    fi
}

postgres_folders() {
    printf '%s\n' /usr/lib/postgresql/*/bin "$(pg_config --bindir 2>/dev/null)" "$(dirname "$(command -v postgres || true)")"
}

# Beside the server: that is where the benchmark looks.
has_postgres_program() {
    local folder
    while read -r folder; do
        if [[ -x $folder/postgres && -x $folder/$1 ]]; then
            return 0
        fi
    done < <(postgres_folders)
    return 1
}

has_postgres() {
    local folder version
    while read -r folder; do
        if [[ -x $folder/initdb && -x $folder/postgres && -x $folder/psql ]]; then
            # "postgres (PostgreSQL) 15.14 (Debian ...)"
            version=$("$folder/postgres" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/')
            if ((version >= OLDEST_POSTGRES)); then
                return 0
            fi
        fi
    done < <(postgres_folders)
    return 1
}

has_fiu() {
    has_library fiu/fiu_run_preload.so && has_library fiu/fiu_posix_preload.so && has_program fiu-ctrl
}

# Debian puts some below the folder of the architecture.
has_library() {
    local library
    for library in /usr/lib/{,*/}"$1" /usr/lib64/"$1" /usr/local/lib/"$1"; do
        if [[ -e $library ]]; then
            return 0
        fi
    done
    return 1
}

# Servers lie in folders that an ordinary user's PATH may lack.
has_program() {
    PATH=$PATH:/usr/local/bin:/usr/bin:/usr/local/sbin:/usr/sbin command -v "$1" >/dev/null
}

can_use_apt() {
    command -v apt-get >/dev/null && { ((EUID == 0)) || sudo -n true 2>/dev/null; }
}

as_root() {
    if ((EUID == 0)); then "$@"; else sudo -n "$@"; fi
}

install_with_apt() {
    local packages=() redis_is_new=no item
    for item in "${missing[@]}"; do
        case $item in
            "C compiler") packages+=(gcc libc6-dev) ;;
            PostgreSQL*) packages+=(postgresql) ;;
            redis-server) packages+=(redis-server) && redis_is_new=yes ;;
            libfaketime) packages+=(faketime) ;;
            libfiu) packages+=(fiu-utils) ;;
            openssl) packages+=(openssl) ;;
            wrk) packages+=(wrk) ;;
            Python*) packages+=(python3 python3-venv) ;;
            # Debian and Ubuntu have it in the server's package.
            pgbench) packages+=(postgresql) ;;
        esac
    done
    say "installing with apt-get: ${packages[*]}"
    trap leave_no_trace EXIT
    keep_servers_from_starting
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
    if [[ $redis_is_new == yes ]] && command -v systemctl >/dev/null; then
        # Only the program is wanted: the service that came with it is not to start at boot either.
        as_root systemctl disable --quiet redis-server.service || true
    fi
    leave_no_trace
    trap - EXIT
}

# While the packages are installed, and only then: no service starts, no cluster is created.
# What the machine's owner has decided about it stays.
keep_servers_from_starting() {
    made=()
    if [[ ! -e $NO_SERVICES ]]; then
        made+=("$NO_SERVICES")
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$NO_SERVICES" >/dev/null
        as_root chmod 755 "$NO_SERVICES"
    fi
    if [[ ! -e $NO_CLUSTER ]]; then
        made+=("$NO_CLUSTER")
        as_root mkdir -p "$(dirname "$NO_CLUSTER")"
        echo 'create_main_cluster = false' | as_root tee "$NO_CLUSTER" >/dev/null
    fi
}

leave_no_trace() {
    if ((${#made[@]} > 0)); then
        as_root rm -f "${made[@]}"
    fi
    made=()
    as_root rmdir --ignore-fail-on-non-empty "$(dirname "$NO_CLUSTER")" 2>/dev/null || true
}

advise() {
    say "please install a C compiler, PostgreSQL $OLDEST_POSTGRES or later and Redis, then try again:"
    if [[ $part == test ]]; then
        say "and, for \`make test\`, OpenSSL, libfaketime and libfiu (Debian: \`openssl faketime fiu-utils\`;"
        say "elsewhere mostly: \`openssl libfaketime libfiu\`, or from https://blitiri.com.ar/p/libfiu)"
    fi
    if [[ $part == bench ]]; then
        say "and, for \`make bench\`, wrk and pgbench (\`wrk\`; \`postgresql\` or \`postgresql-contrib\`)"
    fi
    if [[ $part == fuzz ]]; then
        say "and, for \`make fuzz\`, Python 3.10 or later with venv (\`python3-venv\`)"
    fi
    cat >&2 <<'END'
  Debian, Ubuntu   sudo apt-get install gcc libc6-dev postgresql redis-server
                   (for an older release: https://www.postgresql.org/download/linux)
  Fedora, RHEL     sudo dnf install gcc postgresql-server redis
  Arch             sudo pacman -S gcc postgresql redis
  openSUSE         sudo zypper install gcc postgresql-server redis
  macOS            brew install postgresql@17 redis
                   (`make dev` and `make test` need Linux: run them in a virtual machine)
END
}

say() {
    echo "setup: $*" >&2
}

main "$@"
