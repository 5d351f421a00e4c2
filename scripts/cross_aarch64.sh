#!/usr/bin/env bash
# Build the package for aarch64 on another processor, train a small net there under qemu-user, and compare its digest with
# this processor's. Debian: gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user; arm64 as an architecture of dpkg
# (dpkg --add-architecture arm64 && apt-get update). Python 3.11 and fastconv's dependencies here; CC_AARCH64 is the compiler.
#
#     scripts/cross_aarch64.sh [FOLDER]    the system and packages of aarch64 are kept in FOLDER
set -euo pipefail
tree=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=${1:-$work/root}
packages=(
    libc6 libgcc-s1 libstdc++6 libgomp1 libcrypt1 libexpat1 libffi8 liblzma5 libbz2-1.0 zlib1g libuuid1 libssl3 libsqlite3-0
    python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libpython3.11 libpython3.11-dev
)

if [ ! -d "$root/site" ]; then
    mkdir -p "$root/packages" "$root/system"
    (cd "$root/packages" && apt-get download "${packages[@]/%/:arm64}")
    for package in "$root"/packages/*.deb; do
        dpkg -x "$package" "$root/system"
    done
    python -m pip install --quiet --target "$root/site" --python-version 3.11 --only-binary=:all: \
        --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 numpy safetensors click tqdm scikit-learn
fi

git clone --quiet "$tree" "$work/source"
cd "$work/source"
headers="$root/system/usr/include"
_PYTHON_HOST_PLATFORM=linux-aarch64 CC="${CC_AARCH64:-aarch64-linux-gnu-gcc} -I$headers/python3.11 -I$headers -fPIC" \
    LDSHARED="aarch64-linux-gnu-gcc -shared" python setup.py --quiet build_ext --inplace
find src -name '*.so' | while read -r module; do  # named by the Python that built them
    mv "$module" "${module%%.*}.cpython-311-aarch64-linux-gnu.so"
done

train=(-m fastconv train --dataset digits --epochs 2 --json)
digest() { sed -n 's/.*"isa": "\([a-z0-9]*\)".*"state_sha256": "\([0-9a-f]*\)".*/\2 \1/p'; }
cd "$work"
env -u FASTCONV_ISA PYTHONPATH="$work/source/src:$root/site" PYTHONHOME="$root/system/usr" \
    qemu-aarch64 -L "$root/system" "$root/system/usr/bin/python3.11" "${train[@]}" 2> "$work/theirs.txt" | digest > theirs
PYTHONPATH="$tree/src" python "${train[@]}" 2> "$work/ours.txt" | digest > ours
cat ours theirs
[ -s ours ] && grep -q ' neon$' theirs && [ "$(cut -d' ' -f1 ours)" = "$(cut -d' ' -f1 theirs)" ] || {
    cat "$work/theirs.txt"
    echo "the digests differ, or there is none"
    exit 1
}
echo "aarch64 trains to the same bits"
