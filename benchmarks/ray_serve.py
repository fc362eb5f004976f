"""What Ray Serve would add to plain Ray actors behind the queue: seconds, memory, milliseconds a request.

pip install -c constraints.txt "ray[serve]" && python benchmarks/ray_serve.py
"""

from __future__ import annotations

import os
import statistics
import time
import urllib.request

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on loopback; read when ray is imported

import psutil
import ray
from ray import serve

REPLICAS, REQUESTS, ADDRESS = 2, 100, "http://127.0.0.1:8000/"


def resident() -> float:
    """MB of this process and all below it."""
    below = psutil.Process().children(recursive=True)
    return sum(one.memory_info().rss for one in [psutil.Process(), *below] if one.status() != "zombie") / 1e6


def request() -> float:
    began = time.perf_counter()
    urllib.request.urlopen(ADDRESS).read()
    return time.perf_counter() - began


class Answer:
    async def __call__(self, asked: object) -> str:
        return "ok"

    def ready(self) -> bool:
        return True


def main() -> None:
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=80 << 20,
        log_to_driver=False,
    )
    print(f"load {os.getloadavg()[0]:.1f}; Ray itself {resident():.0f} MB")
    before, began = resident(), time.perf_counter()
    actors = [ray.remote(Answer).options(num_cpus=1).remote() for _ in range(REPLICAS)]
    ray.get([actor.ready.remote() for actor in actors])
    print(f"{REPLICAS} actors: {time.perf_counter() - began:.1f} s, {resident() - before:.0f} MB more")
    for actor in actors:
        ray.kill(actor)
    time.sleep(2)
    before, began = resident(), time.perf_counter()
    serve.run(serve.deployment(Answer, num_replicas=REPLICAS).bind(), route_prefix="/")
    print(
        f"{REPLICAS} replicas of Serve: {time.perf_counter() - began:.1f} s, {resident() - before:.0f} MB more"
    )
    print(
        f"a request that does nothing: {1000 * statistics.median(request() for _ in range(REQUESTS)):.1f} ms"
    )
    ray.shutdown()


if __name__ == "__main__":
    main()
