"""``Cluster``: painters on Ray, on this machine or on many; `starry serve --engine ray`.

Each painter is a Ray actor that supervises one worker where Ray places it: on a GPU of its own, or on so many cores. The workers
lease from the gallery's one queue, as those of ``supervisor.Supervisors`` do, so progress, previews, cancelling and recovery
after a death are the queue's, and jobs outlive Ray. Ray finds machines with room and starts a lost painter again. Ray Serve would
add its own routing of requests in front of that queue; docs/service.md has what it costs.

Ray is imported only here, and only when a ``Cluster`` is made. Imports no torch.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

from starrynight.errors import BadRequest, StarryError
from starrynight.gallery.store import Gallery
from starrynight.jobs.supervisor import Supervisor
from starrynight.settings import set_for_libraries, settings, variable
from starrynight.text import clean

OBJECT_STORE = 80 << 20  # bytes, about Ray's least: nothing of ours goes through it
CONNECT_WITHIN, STOP_WITHIN = 5.0, 20.0  # seconds
# Ray's wildcard listeners follow the node's address; this makes it 127.0.0.1 (ray/_private/services.py).
ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# A worker puts its job back when its actor is gone; Ray would kill it first. Only for a cluster of our own.
SYSTEM = {"kill_child_processes_on_worker_exit": False}

log = logging.getLogger("starrynight.cluster")


class Machine(NamedTuple):
    """What Ray can give on one machine."""

    id: str
    cores: int
    cards: int


class Replica:
    """A Ray actor: one worker and its supervisor. If its process dies, the worker notices, puts its job back and ends."""

    def __init__(
        self, place: str | None, files: str | None, device: str | None, cores: int, number: int, batch: int
    ) -> None:
        gallery = Gallery(place, files)
        # Ray kills the process group of an actor that died; the worker has a job to put back.
        self.supervisor = Supervisor(
            gallery, device, json_logs=True, cores=cores, number=number, own_group=True, batch=batch
        )
        self.supervisor.start()

    def born(self) -> int:
        """This actor's process id."""
        return os.getpid()

    def stop(self) -> None:
        """The worker finishes its step and puts its job back."""
        self.supervisor.stop()


class Cluster:
    """``count`` painters (None: as many as there is room for) with a GPU each, or with ``cores`` cores each where there is no
    GPU. ``address``: of a running Ray cluster; None: RAY_ADDRESS, else one is started on 127.0.0.1 for as long as we live.

    Raises ``BadRequest`` where Ray is not installed, there is no cluster at the address, or no room for so many.
    """

    def __init__(
        self, gallery: Gallery, device: str | None = None, *, count: int | None = None, cores: int | None = None,
        address: str | None = None, batch: int = 1,
    ) -> None:  # fmt: skip
        self.gallery, self.device, self.batch = gallery, device, batch
        self._ray = ray = _connect(address or variable("RAY_ADDRESS"))
        try:
            machines = _machines(ray, only_here=not reached_from_elsewhere(gallery))
            self.on_cards = _wants_cards(device) and any(machine.cards for machine in machines)
            self.cores = 1 if self.on_cards else cores or _share(machines, count)
            room = sum(
                machine.cards if self.on_cards else machine.cores // self.cores for machine in machines
            )
            self.count = room if count is None else count
            if not 0 < self.count <= room:
                raise _no_room(self.count, room, self.cores, self.on_cards)
        except StarryError:
            ray.shutdown()
            raise
        self.actors: list[Any] = []
        self._born: list[Any] = []

    def start(self) -> None:
        """Ask Ray for the painters; they appear as Ray finds room."""
        ray = self._ray
        options: dict[str, Any] = {
            "num_cpus": self.cores, "num_gpus": int(self.on_cards), "max_restarts": -1, "max_concurrency": 2,
            "runtime_env": {"env_vars": _environment()},
        }  # fmt: skip
        if not reached_from_elsewhere(self.gallery):
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            here = ray.get_runtime_context().get_node_id()
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(here, soft=False)
        replica, place = ray.remote(Replica), (self.gallery.place, self.gallery.files_at)
        self.actors = [
            replica.options(**options).remote(*place, self.device, self.cores, n, self.batch)
            for n in range(self.count)
        ]
        self._born = [actor.born.remote() for actor in self.actors]

    def stop(self) -> None:
        """Each worker finishes its step and puts its job back; then Ray ends."""
        with contextlib.suppress(Exception):  # an actor that is gone has nothing to put back
            self._ray.wait(
                [actor.stop.remote() for actor in self.actors], num_returns=len(self.actors), timeout=STOP_WITHIN
            )  # fmt: skip
        self._ray.shutdown()

    @property
    def alive(self) -> bool:
        """Whether a painter has appeared. Whether one is alive now, the leases of the queue tell."""
        return bool(self._born) and bool(self._ray.wait(self._born, timeout=0)[0])


def reached_from_elsewhere(gallery: Gallery) -> bool:
    """Whether other machines reach the gallery: its rows and files are at URLs."""
    rows, files = gallery.place or "", gallery.files_at or ""
    return (
        "://" in rows and not rows.startswith("sqlite") and "://" in files and not files.startswith("file:")
    )


def _connect(address: str | None) -> Any:
    """The module ``ray``, connected to the cluster at ``address``, or to a new one on loopback."""
    if find_spec("ray") is None:
        raise BadRequest(
            "Ray is not installed; install it with: pip install 'starry-night[ray]'.",
            "尚未安装 Ray；请运行：pip install 'starry-night[ray]'。",
        )
    if address is None:
        set_for_libraries(**ON_LOOPBACK)  # read when ray is imported
    else:
        _check_address(address)
    import ray

    quiet: dict[str, Any] = {
        "configure_logging": False,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    own = {"include_dashboard": False, "object_store_memory": OBJECT_STORE, "_system_config": SYSTEM}
    try:
        ray.init(address or "local", **quiet, **({} if address else own))
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise _no_cluster(address or "127.0.0.1", " ".join(str(error).split())[:200]) from error
    return ray


def _check_address(address: str) -> None:
    """Raise unless something listens at "host:port"; Ray itself tries for minutes. "auto" is Ray's own word for the
    cluster on this machine."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not (port.isascii() and port.isdecimal() and int(port) < 65536):
        raise _no_cluster(address, "that is not host:port")
    try:
        socket.create_connection((host, int(port)), CONNECT_WITHIN).close()
    except (OSError, UnicodeError) as error:
        raise _no_cluster(address, str(error)) from error


def _machines(ray: Any, only_here: bool) -> list[Machine]:
    here = ray.get_runtime_context().get_node_id()
    found = [
        Machine(node["NodeID"], int(node["Resources"].get("CPU", 0)), int(node["Resources"].get("GPU", 0)))
        for node in ray.nodes() if node["Alive"]
    ]  # fmt: skip
    if only_here and len(found) > 1:
        log.warning(
            "painting on this machine alone: the others cannot reach a gallery in a folder; set STARRY_GALLERY to a "
            "Postgres URL and STARRY_GALLERY_FILES to a bucket"
        )
    return [machine for machine in found if machine.id == here or not only_here]


def _share(machines: Sequence[Machine], count: int | None) -> int:
    """The most cores a painter can have so that ``count`` find room; None: one painter on each machine."""
    most = max((machine.cores for machine in machines), default=1)
    wanted = len(machines) if count is None else count
    enough = (k for k in range(most, 0, -1) if sum(machine.cores // k for machine in machines) >= wanted)
    return next(enough, 1)


def _wants_cards(device: str | None) -> bool:
    return device is None or device.partition(":")[0] in ("cuda", "rocm")


def _environment() -> dict[str, str]:
    """What a worker elsewhere must know to find models and LoRAs as we do."""
    known = settings()
    paths = os.pathsep.join(map(str, known.model_paths))
    return {"STARRY_HOME": str(known.home.absolute()), "STARRY_PRODUCER": known.producer} | (
        {"STARRY_MODEL_PATHS": paths} if paths else {}
    )


def _no_room(count: int, room: int, cores: int, on_cards: bool) -> BadRequest:
    each = (
        ("a GPU", "一块 GPU") if on_cards else (f"{cores} core{'s' if cores > 1 else ''}", f"{cores} 个核心")
    )
    return BadRequest(
        f"There is room for {room} painters with {each[0]} each, not for {count}; ask for fewer with --workers or --cores, or "
        "add machines.",
        f"每个画师要{each[1]}，只容得下 {room} 个，不够 {count} 个；请用 --workers 或 --cores 减少，或增加机器。",
    )


def _no_cluster(address: str, reason: str) -> BadRequest:
    return BadRequest(
        f"There is no Ray cluster at {clean(address)[:80]} ({clean(reason)}); start one with ray start --head, or leave out "
        "--ray-address.",
        f"{clean(address)[:80]} 没有 Ray 集群（{clean(reason)}）；请先运行 ray start --head，或去掉 --ray-address。",
    )
