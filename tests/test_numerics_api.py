"""The public names of ``starrynight.numerics``: each resolves, none hides a file, and torch loads on first use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from starrynight import numerics


@pytest.mark.parametrize("name", numerics.__all__)
def test_every_exported_name_resolves_and_is_no_file_name(name: str) -> None:
    exported = getattr(numerics, name)
    assert exported.__name__ == name
    assert exported.__module__.startswith("starrynight.numerics.")
    assert name in dir(numerics)
    assert not (Path(numerics.__file__).parent / f"{name}.py").exists()


def test_the_list_of_exports_has_no_gap_and_no_repetition() -> None:
    assert sorted(set(numerics.__all__)) == numerics.__all__
    assert set(numerics.__all__) == {name for names in numerics._HOMES.values() for name in names}
    with pytest.raises(AttributeError, match="solve_everything"):
        _ = numerics.solve_everything


def test_importing_the_package_does_not_import_torch() -> None:
    code = (
        "import sys; import starrynight.numerics as n; assert 'torch' not in sys.modules;"
        "n.PrecisionPlan; assert 'torch' not in sys.modules;"
        "from starrynight.numerics import trace_modules; assert 'torch' in sys.modules;"
        "assert n.trace.trace_modules is trace_modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
