# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Sourced by scripts/test and scripts/quickstart: what a fresh Debian 12 lacks, and how it gets there.

# To build and run.
# shellcheck disable=SC2034 # used by the scripts that source this one
CORAL_PACKAGES=(
    build-essential cmake ninja-build pkg-config ccache
    libfuse3-dev fuse3 libsqlite3-dev libssl-dev libxxhash-dev libzstd-dev libdeflate-dev zlib1g-dev
    libboost-filesystem-dev libcli11-dev nlohmann-json3-dev libtomlplusplus-dev libfmt-dev libspdlog-dev
    attr python3 python3-venv python3-pip
)
# To test as well.
# shellcheck disable=SC2034
CORAL_TEST_PACKAGES=(clang-format libgtest-dev libbenchmark-dev rsync git systemd)

say() { printf '== %s\n' "$*" >&2; }

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# missing_packages NAME…: those of them that are not installed, one a line.
missing_packages() {
    local name
    for name in "$@"; do
        [[ $(dpkg-query -W -f '${Status}' "$name" 2>/dev/null) == "install ok installed" ]] || printf '%s\n' "$name"
    done
}

# install_packages NAME…: with apt as root; without root it says what to ask for.
install_packages() {
    local -a missing
    mapfile -t missing < <(missing_packages "$@")
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || fail "needed, but this is no Debian to install it on: ${missing[*]}"
    ((EUID == 0)) || fail "packages are missing; as root: apt-get install ${missing[*]}"
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # The list may be missing or old; a second try with a new one is cheaper than a new one every time.
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 && return 0
    apt-get update -qq || fail "apt-get update failed: see above"
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        fail "apt-get could not install ${missing[*]}: see above"
}

# open_fuse: a /dev/fuse that mounts can be made with, by users too, as udev leaves it on Debian.
open_fuse() {
    if [[ ! -e /dev/fuse ]] && ((EUID == 0)); then
        modprobe fuse 2>/dev/null || true
    fi
    [[ -e /dev/fuse ]] || fail "/dev/fuse is missing: load the module (as root: modprobe fuse); in a container, pass the device"
    if ((EUID == 0)); then
        [[ $(stat -c %a /dev/fuse) == 666 ]] || chmod 0666 /dev/fuse || true
    fi
    [[ -r /dev/fuse && -w /dev/fuse ]] || fail "/dev/fuse is closed to you: as root: chmod 0666 /dev/fuse"
}

# build_preset PRESET [CMAKE_OPTION…]
build_preset() {
    local preset=$1
    shift
    say "building build/$preset"
    cmake --preset "$preset" "$@" >&2 || fail "cmake --preset $preset failed: see above"
    cmake --build --preset "$preset" >&2 || fail "the build of build/$preset failed: see above"
}
