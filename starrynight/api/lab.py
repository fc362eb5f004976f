"""Routes of the lab: the report and the pictures of a run on this machine, as files."""

from __future__ import annotations

import re
from pathlib import Path

from fastapi import APIRouter, Request, Response

from starrynight.api.bodies import Route
from starrynight.api.files import CHECK_AGAIN, PICTURE, check_format, file_response
from starrynight.api.pools import FILES
from starrynight.api.schema import PARTS, errors, files
from starrynight.errors import MissingFile
from starrynight.lab import report as reports
from starrynight.lab import table
from starrynight.lab.run import PLAN, ExperimentRun
from starrynight.storage import read_regular, storing

router = APIRouter(route_class=Route)
# The report is an HTML page with inline scripts, which may run but load nothing and reach no other page.
REPORT = PICTURE | {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "sandbox allow-scripts",
    "Cache-Control": "no-store",
}


@router.get(
    "/lab/{run}/report", response_class=Response, responses=files("text/html", parts=False) | errors(422)
)
@FILES.route
def report(run: str) -> Response:
    opened = found(run)
    if run == table.EXAMPLE and opened.folder.parent != table.home():  # the package's folder may be read-only
        from starrynight.lab.report import html

        data = html.page(opened).encode()
    else:
        data = _read(reports.latest(opened))
    return Response(data, media_type="text/html; charset=utf-8", headers=REPORT)


@router.get(
    "/lab/{run}/pictures/{name}",
    response_class=Response,
    responses=files("image/png") | errors(422),
    openapi_extra=PARTS,
)
@FILES.route
def picture(run: str, name: str, request: Request) -> Response:
    path = found(run).pictures / name
    if not re.fullmatch(r"[\w.-]+\.png", name) or name.startswith(".") or not path.is_file():
        raise MissingFile("There is no such picture in this run.", "这次实验里没有这幅画。")
    return file_response(request, check_format(_read(path), "png"), "image/png", PICTURE | CHECK_AGAIN)


def _read(path: Path) -> bytes:
    """A file of a run; a link out of the lab's home, or out of the example's folder, is not followed."""
    home = table.home() if path.is_relative_to(table.home()) else table.example().folder
    with storing(path):
        return read_regular(home, str(path.relative_to(home)))


def found(name: str) -> ExperimentRun:
    """The run in folder ``name`` of the lab's home, which the name cannot leave. Raises ``MissingFile``."""
    folder: Path = table.home() / name
    if name == table.EXAMPLE and not (folder / PLAN).is_file():
        return table.example()
    if not re.fullmatch(r"[\w.-]+", name) or name.startswith(".") or not (folder / PLAN).is_file():
        raise MissingFile(
            "There is no such lab run; see starry lab list.", "没有这次实验；见 starry lab list。"
        )
    return ExperimentRun.open(folder)
