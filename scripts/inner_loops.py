"""List the inner loops of compiled kernels: whether the compiler kept a tile in registers is best seen there.

    python scripts/inner_loops.py build/kernels.*/src/fastconv/_kernels/isa_avx512_f32.o rows_tile

One line a loop with multiply-adds: how many of them, of instructions, of broadcasts, of vectors loaded, of general
registers that are fetched from the stack (or from vector registers) each time round, and of vectors copied. A tile
that spills shows in the last three. Needs objdump; x86 only.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator

COLUMNS = {
    "fma": re.compile(r"vfn?madd"),
    "instructions": re.compile(""),
    "broadcasts": re.compile(r"vbroadcast|\{1to"),
    "vector loads": re.compile(r"vmov[ua]p[sd] [^%]*\("),
    "stack": re.compile(r"\(%r[sb]p\)"),
    "from vectors": re.compile(r"vmov[dq] %xmm\d+,%r"),
    "vector copies": re.compile(r"vmov[ua]p[sd] %[xyz]mm\d+,%[xyz]mm"),
}
JUMP = re.compile(r"j\w+ +([0-9a-f]+)")


def functions(path: str) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """Yield each function's name and instructions, (address, text)."""
    command = ["objdump", "-d", "--no-show-raw-insn", path]
    try:
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        sys.exit("objdump is not installed (binutils)")
    except subprocess.CalledProcessError as error:
        sys.exit(error.stderr.strip())
    for block in text.split("\n\n"):
        if name := re.search(r"^[0-9a-f]+ <(.*)>:$", block, re.MULTILINE):
            found = re.findall(r"^ *([0-9a-f]+):\t([^#\n]*)", block, re.MULTILINE)
            yield name[1], [(int(address, 16), " ".join(code.split())) for address, code in found]


def inner_loops(code: list[tuple[int, str]]) -> Iterator[list[str]]:
    """Yield the instructions between a jump back and its target, where no other jump lies between."""
    places = {address: i for i, (address, _) in enumerate(code)}
    for i, (_, text) in enumerate(code):
        jump = JUMP.match(text)
        first = places.get(int(jump[1], 16), i + 1) if jump else i + 1
        if first <= i and not any(JUMP.match(inside) for _, inside in code[first:i]):
            yield [inside for _, inside in code[first : i + 1]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("object", help="a compiled kernel table")
    parser.add_argument("match", nargs="?", default="", help="only functions whose name matches")
    parser.add_argument("--least", type=int, default=6, metavar="N", help="multiply-adds (default: %(default)s)")
    args = parser.parse_args()
    try:
        match = re.compile(args.match)
    except re.error as error:
        parser.error(f"{args.match!r} is no regular expression: {error}")
    print(f"{'function':34}", *COLUMNS, sep="  ")
    for name, code in functions(args.object):
        if not match.search(name):
            continue
        for loop in inner_loops(code):
            counts = {column: sum(bool(what.search(line)) for line in loop) for column, what in COLUMNS.items()}
            if counts["fma"] >= args.least:
                print(f"{name:34}", *(f"{n:{len(column)}}" for column, n in counts.items()), sep="  ")


if __name__ == "__main__":
    main()
