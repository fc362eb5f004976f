"""Routes for those who watch the server itself: is it well, and its numbers for Prometheus."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from starrynight import __version__

router = APIRouter()


@router.get("/health")
def health(request: Request) -> dict[str, Any]:
    state = request.app.state
    return {
        "status": "ok",
        "version": __version__,
        "worker": "alive" if state.worker_alive() else "starting",
        "jobs": state.queue.counts(),
        "pictures": state.gallery.count(),
    }


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """Prometheus's text format, version 0.0.4."""
    found = health(request)
    lines = [
        "# TYPE starry_pictures gauge", f"starry_pictures {found['pictures']}",
        "# TYPE starry_worker_alive gauge", f"starry_worker_alive {int(found['worker'] == 'alive')}",
        "# TYPE starry_jobs gauge", *(f'starry_jobs{{state="{name}"}} {n}' for name, n in found["jobs"].items()),
    ]  # fmt: skip
    return Response("\n".join([*lines, ""]), media_type="text/plain; version=0.0.4")
