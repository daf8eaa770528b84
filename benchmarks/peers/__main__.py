"""Everything that is compared with others, in one process: tables in Markdown, figures as JSON.

python -m benchmarks.peers [--rounds 5] [--quick] [--only random threads events fixed wide cost]
    [--out F.md] [--json F.json] [--plot F.svg]
"""

import argparse
import json
import platform
from importlib import import_module
from pathlib import Path

import numba

from benchmarks.peers.peer import installed_peers
from benchmarks.peers.table import Table

PARTS = ("random", "threads", "events", "fixed", "wide", "cost")


def main() -> None:
    options = _options()
    peers, absent = installed_peers()
    print(*absent, sep="\n", end="\n" if absent else "")
    cores = numba.get_num_threads()
    numba.set_num_threads(1)
    tables: list[Table] = []
    if "random" in options.only:
        compare = import_module("benchmarks.peers.random_effects").compare
        counts = [300, 2_000] if options.quick else [300, 20_000]
        tables.append(compare(peers, counts=counts, rounds=options.rounds))
    if "threads" in options.only:
        count = 2_000 if options.quick else 20_000
        tables.append(import_module("benchmarks.peers.threads").compare(cores, count=count, rounds=options.rounds))
    if "events" in options.only:
        stored = 20_000 if options.quick else 300_000
        tables.append(import_module("benchmarks.peers.events").measure(stored, rounds=options.rounds))
    if "fixed" in options.only:
        rows = 50_000 if options.quick else 1_000_000
        tables.append(import_module("benchmarks.peers.fixed_effect").compare(rows, rounds=options.rounds))
    if "wide" in options.only:
        rows = 50_000 if options.quick else 1_000_000
        tables.append(import_module("benchmarks.peers.wide_effect").measure(rows, rounds=options.rounds))
    if "cost" in options.only:
        tables.append(import_module("benchmarks.peers.cost").measure(rounds=options.rounds, plot=options.plot))
    text = "\n".join(table.markdown() for table in tables)
    print(f"\n{text}")
    if options.out:
        options.out.write_text(text)
    if options.json:
        facts = {table.title: table.rows for table in tables}
        options.json.write_text(
            json.dumps({"machine": platform.processor() or platform.machine(), **facts}, indent=1)
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="acclimate beside others")
    parser.add_argument("--rounds", type=int, default=5, help="each is measured so often, in turns")
    parser.add_argument("--quick", action="store_true", help="smaller sizes")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--out", type=Path, help="the tables, in Markdown")
    parser.add_argument("--json", type=Path, help="the figures")
    parser.add_argument("--plot", type=Path, help="the cost, drawn as SVG")
    return parser.parse_args()


if __name__ == "__main__":
    main()
