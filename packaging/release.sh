#!/usr/bin/env bash
# Builds a release and packages it: a wheel, a Debian package, an archive and SHA256SUMS, in DIR.
# usage: packaging/release.sh DIR [--twice]
# --twice builds a second time, in a copy of the sources at another place, and says whether every byte is the same.
# The same sources, lock file, Rust and C compiler give the same bytes wherever they lie: see docs/src/how-to/install.md.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

case ${1:-} in
'' | -*) sed -n 's/^# usage: /usage: /p' "$0" >&2; exit 2 ;;
esac
mkdir -p "$1"
out=$(cd "$1" && pwd)

# The time of the commit and its name, for sources that come without git as well.
if commit=$(git rev-parse HEAD 2>/dev/null); then
    [ -z "$(git status --porcelain)" ] || commit=$commit-dirty
    : "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
fi
: "${SOURCE_DATE_EPOCH:?set it to seconds since 1970: there is no commit whose time could be used}"
export SOURCE_DATE_EPOCH NARTHEX_COMMIT=${commit:-} CARGO_TERM_COLOR=never LC_ALL=C TZ=UTC

# build SOURCES TARGET: the binary of sources at one place, without a word about that place in it.
build() {
    local home=${CARGO_HOME:-$HOME/.cargo} rust
    rust=$(rustc --print sysroot)
    (
        cd "$1"
        # Later ones win, so the narrower stand last.
        export RUSTFLAGS="--remap-path-prefix=$1=/narthex --remap-path-prefix=$home=/cargo \
--remap-path-prefix=$rust=/rust --remap-path-prefix=$2=/target"
        # The same for the libraries in C.
        export CFLAGS="-ffile-prefix-map=$1=/narthex -ffile-prefix-map=$home=/cargo -ffile-prefix-map=$2=/target"
        export CXXFLAGS=$CFLAGS
        cargo build --release --locked --package narthex --target-dir "$2"
    )
}

target=${CARGO_TARGET_DIR:-$root/target}/package
build "$root" "$target"
binary=$target/release/narthex

for place in "$root" "${CARGO_HOME:-$HOME/.cargo}" "$target"; do
    if count=$(grep -c -a -F "$place" "$binary"); then
        echo "warning: $count lines of the binary name $place: another machine gives other bytes" >&2
    fi
done
size=$(stat -c %s "$binary")
[ "$size" -le 100000000 ] || echo "warning: the binary has $size bytes; it is meant to stay below 100000000" >&2

# The Python package, over a program and a server of its tests' own.
if command -v python3 >/dev/null; then
    PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=packaging/python python3 -m unittest discover --quiet packaging/python/tests
fi

cargo xtask package --out "$out" --binary "$binary" ${NARTHEX_MAINTAINER:+--maintainer "$NARTHEX_MAINTAINER"}

# PyPI takes no more.
for wheel in "$out"/*.whl; do
    bytes=$(stat -c %s "$wheel")
    [ "$bytes" -lt 100000000 ] || { echo "error: $wheel has $bytes bytes, and PyPI takes less than 100000000" >&2; exit 1; }
done

if [ "${2:-}" = --twice ]; then
    copy=$(mktemp -d)
    trap 'rm -rf "$copy"' EXIT
    git ls-files -z | tar --null --files-from=- --create --file=- | tar --extract --directory="$copy" --file=-
    build "$copy" "$copy/target"
    if difference=$(cmp "$binary" "$copy/target/release/narthex"); then
        echo "reproduced: $(sha256sum <"$binary" | cut -d' ' -f1)"
    else
        echo "error: not reproduced: $difference" >&2
        exit 1
    fi
fi
