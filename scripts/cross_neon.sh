#!/usr/bin/env bash
# Cross-compile the NEON table with warnings as errors (Debian: gcc-aarch64-linux-gnu libc6-dev-arm64-cross) and,
# where qemu-aarch64 is, compare its bits with the scalar table's.
set -euo pipefail
cd "$(dirname "$0")/.."
kernels=src/fastconv/_kernels
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
flags=(-std=c11 -O2 -ffp-contract=off -fno-math-errno -fno-trapping-math -Wall -Wextra -Werror -I"$kernels")
for source in isa_neon_f32 isa_neon_f64 isa_scalar_f32 isa_scalar_f64 dispatch; do
    aarch64-linux-gnu-gcc "${flags[@]}" -c "$kernels/$source.c" -o "$out/$source.o"
done
echo "NEON table compiles"
if command -v qemu-aarch64 > /dev/null; then
    aarch64-linux-gnu-gcc "${flags[@]}" -static tests/native/compare_tables.c "$out"/*.o -lm -o "$out/compare"
    qemu-aarch64 "$out/compare"
else
    echo "not run: no qemu-aarch64 here"
fi
