"""Events a minute that ``acclimate.simulate`` makes, the Arrow table included."""

import time

import acclimate as ac


def main() -> None:
    for users, items in ((2_000, 400), (100_000, 5_000)):
        begin = time.perf_counter()
        rows = ac.simulate(users=users, items=items, events_per_day=100_000).table().num_rows
        seconds = time.perf_counter() - begin
        print(f"simulate, {users:,} users: {rows * 60 / seconds / 1e6:.1f} million events a minute")


if __name__ == "__main__":
    main()
