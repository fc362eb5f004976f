"""What painting need not import is deferred, and everything that asks for it gets the real thing."""

import gc
import importlib
import platform
import subprocess
import sys
import textwrap
import threading

import pytest

from starrynight.models.imports import Deferred, Marks, collection_paused


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose body counts how often it runs, with a submodule that needs nothing of it."""
    folder = tmp_path / "heavy_package"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "import sys\nsys.heavy_runs = getattr(sys, 'heavy_runs', 0) + 1\n"
        "from . import part\nnumber = 7\ndef allow_in_graph(f):\n    f.allowed = True\n    return f\n"
        "def assume_constant_result(f):\n    f.constant = True\n    return f\n"
        "def disable(f, recursive=True, reason=None):\n    return lambda *a: ('disabled', reason, f(*a))\n"
    )
    (folder / "part.py").write_text("")
    (folder / "light.py").write_text("word = 'light'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "heavy_runs", 0, raising=False)
    yield "heavy_package"
    for name in [name for name in sys.modules if name.startswith("heavy_package")]:
        del sys.modules[name]


def stand_in(name, own=None, on_import=lambda _: None, apart=()):
    sys.modules[name] = deferred = Deferred(name, own or {}, on_import, apart)
    return deferred


def test_a_deferred_module_is_imported_once_when_it_is_used(package):
    deferred = stand_in(package)
    assert importlib.import_module(package) is deferred
    assert not hasattr(deferred, "__wrapped__")
    assert deferred.__file__.endswith("__init__.py")
    assert sys.heavy_runs == 0
    assert deferred.number == 7
    assert deferred.number == 7
    assert sys.heavy_runs == 1
    assert type(sys.modules[package]) is not Deferred
    with pytest.raises(AttributeError):
        deferred.nothing  # noqa: B018


def test_from_import_gets_the_real_module(package):
    stand_in(package)
    from heavy_package import number

    assert (number, sys.heavy_runs) == (7, 1)


@pytest.mark.parametrize("name", ["part", "light"])  # imported by the package's body, and not
def test_a_submodule_imports_the_package_first_and_is_there_once(package, name):
    stand_in(package)
    child = importlib.import_module(f"{package}.{name}")
    assert sys.heavy_runs == 1
    real = sys.modules[package]
    assert type(real) is not Deferred
    assert getattr(real, name) is child is sys.modules[f"{package}.{name}"]
    assert child.__spec__.origin.endswith(f"{name}.py")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"{package}.nothing")


def test_a_submodule_that_is_not_there(package):
    stand_in(package)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"{package}.nothing")


def test_a_submodule_that_stands_apart_is_imported_without_its_package(package):
    deferred = stand_in(package, apart=(f"{package}.light",))
    light = importlib.import_module(f"{package}.light")
    assert (light.word, sys.heavy_runs) == ("light", 0)
    assert deferred.number == 7
    assert sys.modules[package].light is light


def test_threads_that_ask_at_once_all_get_it(package):
    deferred, found = stand_in(package), []
    threads = [threading.Thread(target=lambda: found.append(deferred.number)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [7] * 8
    assert sys.heavy_runs == 1


def test_a_module_that_is_not_there_cannot_be_deferred():
    with pytest.raises(ModuleNotFoundError):
        Deferred("no_such_module_anywhere", {}, lambda _: None)


def test_decorators_wait_for_the_compiler(package):
    marks = Marks()
    own = {name: getattr(marks, name) for name in ("allow_in_graph", "assume_constant_result", "disable")}
    deferred = stand_in(package, own, marks.apply)

    def double(x):
        return 2 * x

    assert deferred.allow_in_graph(double) is double is deferred.assume_constant_result(double)
    quiet, loud = deferred.disable(double), deferred.disable(recursive=False, reason="loud")(double)
    assert (quiet(3), loud(3), sys.heavy_runs, quiet.__name__) == (6, 6, 0, "double")
    assert deferred.number == 7
    assert double.allowed
    assert double.constant
    assert (quiet(3), loud(3)) == (("disabled", None, 6), ("disabled", "loud", 6))
    assert deferred.disable(double)(3) == ("disabled", None, 6)  # the real one


def test_collection_is_paused_and_goes_on():
    assert gc.isenabled()

    def fail():
        with collection_paused():
            assert not gc.isenabled()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert gc.isenabled()


FAULTS = """
    import ctypes, resource, sys
    from starrynight.models.imports import keep_freed_memory
    kept = keep_freed_memory() if sys.argv[1] == "kept" else True
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    for _ in range(20):
        place = libc.malloc(40 << 20)
        ctypes.memset(place, 1, 40 << 20)
        libc.free(place)
    print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
def test_freed_memory_is_kept_where_it_is_asked_for():
    faults = {}
    for way in ("kept", "returned"):
        command = [sys.executable, "-c", textwrap.dedent(FAULTS), way]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        told, faults[way] = map(int, done.stdout.split())
        assert told
    assert faults["kept"] + 100_000 < faults["returned"]


PAINTED = """
    import gc, sys
    from pathlib import Path
    from starrynight.gallery.files import OutputPath
    from starrynight.studio import Studio
    from starrynight.request import PaintRequest

    studio = Studio(OutputPath(Path({folder!r})))
    list(studio.paint(PaintRequest(prompt="夜", model="firefly", width=128, height=128, steps=1, seed=1, precision="bfloat16")))
    loaded = [name for name in ("torch._dynamo.convert_frame", "scipy.stats._stats_py", "scipy.optimize._milp") if name in sys.modules]
    assert not loaded, loaded
    assert gc.isenabled()

    from transformers.loss.loss_for_object_detection import linear_sum_assignment
    assert [list(one) for one in linear_sum_assignment([[1, 0], [0, 1]])] == [[0, 1], [1, 0]]
    from scipy.optimize import linear_sum_assignment as again, milp
    assert again is not linear_sum_assignment and callable(milp)
    assert [list(one) for one in linear_sum_assignment([[0, 1], [1, 0]])] == [[0, 1], [0, 1]]

    import scipy
    assert abs(scipy.stats.beta.ppf(0.5, 2, 2) - 0.5) < 1e-12
    from diffusers import FlowMatchEulerDiscreteScheduler, LMSDiscreteScheduler
    lms = LMSDiscreteScheduler()
    lms.set_timesteps(4)
    assert abs(lms.get_lms_coefficient(2, 2, 1)) > 0
    FlowMatchEulerDiscreteScheduler(use_beta_sigmas=True).set_timesteps(4)

    import torch
    from diffusers.utils.torch_utils import is_compiled_module
    assert not is_compiled_module(studio._painter.denoiser)
    seen = []
    @torch.compiler.disable
    def note(x):
        seen.append(torch.compiler.is_compiling())
        return x
    @torch.compiler.allow_in_graph
    def allowed(x):
        return x + 1
    def whole(x):
        return note(allowed(x) * 2) + 1
    assert whole(torch.ones(1)).item() == 5 and "torch._dynamo.convert_frame" not in sys.modules
    seen.clear()
    assert torch.compile(whole, backend="eager")(torch.ones(1)).item() == 5
    assert seen == [False]  # called, not traced
    assert is_compiled_module(torch.compile(torch.nn.Linear(1, 1), backend="eager"))
    import torch._dynamo
    from torch._dynamo import trace_rules
    assert trace_rules.is_callable_allowed(allowed)
    assert type(torch._dynamo).__name__ == type(sys.modules["torch._dynamo"]).__name__ == "module"
"""


def test_painting_needs_neither_compiler_nor_statistics_and_both_still_work(tmp_path):
    code = textwrap.dedent(PAINTED).format(folder=str(tmp_path / "out"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
