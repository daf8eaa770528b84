"""Runs every benchmark of this folder."""

import importlib
import pkgutil

import benchmarks.speed as home


def run_all() -> None:
    """Each module's ``main()``, in the order of their names, under its name."""
    for found in pkgutil.iter_modules(home.__path__):
        if found.name.startswith("_"):
            continue
        module = importlib.import_module(f"{home.__name__}.{found.name}")
        if hasattr(module, "main"):
            print(f"\n{found.name}: {(module.__doc__ or '').splitlines()[0]}")
            module.main()


if __name__ == "__main__":
    run_all()
