"""HTTP over real servers: requests, a painted picture and its events, errors, and hostile callers."""

from __future__ import annotations

import io
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from attacks.pictures import itxt, png
from hung import picture
from PIL import Image
from served import Server, ask, events, gallery_in, listening

from starrynight.api import app as api
from starrynight.api.access import Access, AccessMiddleware
from starrynight.errors import StorageError
from starrynight.gallery.store import Gallery
from starrynight.jobs.queue import Queue
from starrynight.metadata import read_pixels, read_recipe

SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    with gallery_in(tmp_path_factory.mktemp("home")) as opened:
        yield opened


@pytest.fixture(scope="module")
def app(gallery: Gallery) -> object:
    return api.create_app(gallery, Queue(gallery), lambda: True)


@pytest.fixture(scope="module")
def here(app: object) -> Iterator[str]:
    """A server without a worker."""
    with listening(AccessMiddleware(app, Access.of("127.0.0.1", None))) as address:
        yield address


@pytest.fixture(scope="module")
def network(app: object) -> Iterator[str]:
    """A server that is open to a network."""
    with listening(AccessMiddleware(app, Access.of("0.0.0.0", "sesame"))) as address:
        yield address


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    opened = Server(tmp_path_factory.mktemp("studio"))
    yield opened
    opened.close()


def test_a_job_is_submitted_watched_and_its_pictures_fetched(server: Server) -> None:
    job = server.submit("星夜下的村庄", style="ink", steps=4, count=2)
    seen = list(events(server.address, job))
    names = [name for name, _ in seen]
    assert names.count("picture") == 2
    assert names.count("preview") >= 2
    assert names[-1] == "ended"
    preview = next(data for name, data in seen if name == "preview")
    assert re.match(r"data:image/webp;base64,[\w+/=]+$", preview["image"])
    assert 1 <= preview["step"] <= preview["steps"] == 4
    ended = seen[-1][1]
    assert (ended["state"], ended["progress"]) == ("done", 1.0)
    one = ended["painted"][0]["picture"]
    assert list(events(server.address, job))[-1][0] == "ended"  # a late listener gets the end

    file = server.ask(f"/api/pictures/{one}/file")
    assert (file.status, file.headers["content-type"]) == (200, "image/png")
    assert read_recipe(file.body).seed == 5
    thumb = server.ask(f"/api/pictures/{one}/thumb?size=256")
    assert Image.open(io.BytesIO(thumb.body)).format == "WEBP"
    found = server.ask("/api/pictures?text=%E6%9D%91%E5%BA%84&style=ink").json
    assert {row["id"] for row in found["pictures"]} == {painted["picture"] for painted in ended["painted"]}
    assert server.ask(f"/api/pictures/{one}/recipe").json["verdict"]["outcome"] == "hang"
    assert server.submit("next")
    health = server.ask("/api/health").json
    assert (health["status"], health["worker"]) == ("ok", "alive")
    assert b'starry_jobs{state="done"}' in server.ask("/api/metrics").body


def test_a_painting_job_is_cancelled_within_a_step(server: Server) -> None:
    job = server.submit("画不完的画", steps=100, count=8)
    server.until(job, lambda found: (found["step"] or 0) >= 2)
    at = server.ask(f"/api/jobs/{job}/cancel", {}).json["step"]
    steps = [data["step"] for name, data in events(server.address, job) if name == "job" and data["step"]]
    assert server.job(job)["state"] == "cancelled"
    assert max([at, *steps]) - at <= 1
    assert server.job(job)["painted"] == []


def test_the_pages_are_served_at_the_same_address(server: Server) -> None:
    page = server.ask("/")
    assert (page.status, page.headers["x-frame-options"]) == (200, "DENY")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert server.ask("/", Origin="http://evil.example").status == 403
    assert server.ask("/_stcore/stream", Host="evil.example").status == 421


def test_a_second_open_prints_the_address_and_a_taken_port_fails(server: Server, tmp_path: Path) -> None:
    port = server.address.rstrip("/").rsplit(":", 1)[1]
    again = Server(server.home, "--port", port, http_proxy="http://127.0.0.1:9")
    assert (again.process.wait(60), again.address) == (0, server.address)
    again.close()
    another = Server(tmp_path, "--port", port)  # another gallery: not ours to show
    assert (another.process.wait(60), another.address) == (StorageError.exit_code, "")
    another.close()
    assert not (tmp_path / "gallery").exists()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = Server(tmp_path, "--port", str(other.getsockname()[1]))
        assert taken.process.wait(60) == StorageError.exit_code
        taken.close()
    log = (tmp_path / "server.log").read_text("utf-8")
    assert log.startswith("✗ Cannot listen on")
    assert log.count("\n") == 2


def test_jobs_are_listed_moved_cancelled_and_retried(here: str) -> None:
    ids = [ask(here, "/api/jobs", {"prompt": name}).json["id"] for name in "abc"]
    assert ask(here, f"/api/jobs/{ids[2]}/move", {"position": 0}).json["position"] == 0
    assert [job["id"] for job in ask(here, "/api/jobs").json["jobs"]] == [ids[2], ids[0], ids[1]]
    for job in ids:
        assert ask(here, f"/api/jobs/{job}/cancel", {}).json["state"] == "cancelled"
    assert ask(here, "/api/jobs").json == {"jobs": []}
    assert len(ask(here, "/api/jobs?state=ended").json["jobs"]) == 3
    again = ask(here, f"/api/jobs/{ids[0]}/retry", {}).json
    assert (again["state"], again["error"]) == ("waiting", None)
    assert ask(here, f"/api/jobs/{ids[0]}/preview").status == 404
    ask(here, f"/api/jobs/{ids[0]}/cancel", {})


def test_a_download_has_its_recipe_in_every_format(here: str, gallery: Gallery) -> None:
    row = gallery.add(picture("江雪，<b>孤舟</b> \"'../", style="ink"))
    original = ask(here, f"/api/pictures/{row.id}/file")
    assert original.body == gallery.read(row)
    assert original.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in original.headers["content-security-policy"]
    assert "immutable" in original.headers["cache-control"]
    for kind, magic in (("png", b"\x89PNG"), ("jpeg", b"\xff\xd8"), ("webp", b"RIFF")):
        got = ask(here, f"/api/pictures/{row.id}/download?format={kind}")
        assert got.body.startswith(magic)
        assert read_recipe(got.body).request() == read_recipe(original.body).request()
        named = got.headers["content-disposition"]
        assert re.fullmatch(r"attachment; filename=\"starry-\w{8}\.\w+\"; filename\*=UTF-8''[\w%.-]+", named)
    assert ask(here, f"/api/pictures/{row.id}/download").body == original.body
    for wrong in ("format=gif", "format=jpeg&quality=0"):
        assert ask(here, f"/api/pictures/{row.id}/download?{wrong}").status == 400
    assert ask(here, f"/api/pictures/{row.id}/thumb?size=100000").status == 400


def test_a_larger_picture_has_its_recipe_and_what_cannot_be_made_larger_is_said(
    here: str, gallery: Gallery
) -> None:
    row = gallery.add(picture("江雪，孤舟"))
    got = ask(here, f"/api/pictures/{row.id}/upscaled?factor=2&format=webp")
    assert got.headers["content-disposition"].startswith(
        f'attachment; filename="starry-{row.id[:8]}-x2.webp"'
    )
    assert read_pixels(got.body).shape[:2] == (2 * row.height, 2 * row.width)
    recipe = read_recipe(got.body)
    assert (recipe.prompt, recipe.raw["upscaled"]["factor"]) == ("江雪，孤舟", 2)
    for wrong, status in (("factor=3", 400), ("model=finest", 404), ("format=gif", 400)):
        assert ask(here, f"/api/pictures/{row.id}/upscaled?{wrong}").status == status


def test_a_corrupt_or_missing_file_is_an_error_of_its_own(here: str, gallery: Gallery) -> None:
    corrupt, missing, whole = (gallery.add(picture("坏掉的画", seed)) for seed in (701, 702, 703))
    Path(gallery.path(corrupt)).write_bytes(gallery.read(corrupt)[:300])
    Path(gallery.path(missing)).unlink()
    assert len(ask(here, "/api/pictures?text=%E5%9D%8F%E6%8E%89").json["pictures"]) == 3
    for row, status in ((corrupt, 422), (missing, 404), (whole, 200)):
        assert ask(here, f"/api/pictures/{row.id}/thumb").status == status
        assert ask(here, f"/api/pictures/{row.id}/download?format=jpeg").status == status
    for row, seed in ((corrupt, 701), (missing, 702)):
        gallery.add(picture("坏掉的画", seed))  # painting it again restores the file
        assert ask(here, f"/api/pictures/{row.id}/thumb").status == 200


def test_a_foreign_recipe_survives_every_format(here: str, gallery: Gallery, tmp_path: Path) -> None:
    parameters = "a quiet 村庄\nNegative prompt: blurry\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 99, Size: 8x8, Model: m"
    (tmp_path / "a1111.png").write_bytes(png(itxt("parameters", parameters), width=8, height=8))
    assert gallery.import_pictures(tmp_path).added == 1
    (row,) = gallery.search("村庄 quiet").rows
    for kind in ("png", "jpeg", "webp"):
        got = ask(here, f"/api/pictures/{row.id}/download?format={kind}&quality=80")
        recipe = read_recipe(got.body)
        assert (recipe.seed, recipe.prompt, recipe.steps) == (99, "a quiet 村庄", 20)


WRONG = {
    "an empty prompt": ("/api/jobs", {"prompt": " "}, 400, "BadRequest"),
    "a wrong size": ("/api/jobs", {"prompt": "x", "width": 250}, 400, "WrongSize"),
    "a prompt that is not text": ("/api/jobs", {"prompt": ["x"]}, 400, "BadRequest"),
    "an unknown field": ("/api/jobs", {"prompt": "x", "stpes": 3}, 400, "BadRequest"),
    "an unknown style": ("/api/jobs", {"prompt": "x", "style": "oli"}, 404, "UnknownName"),
    "a model that is not installed": ("/api/jobs", {"prompt": "x", "model": "sdxl"}, 404, "MissingFile"),
    "a file of the server as init_image": ("/api/jobs", {"prompt": "x", "init_image": "/etc/passwd"}, 400, "BadRequest"),
    "no JSON": ("/api/jobs", b"{", 400, "BadRequest"),
    "no UTF-8, at an address with braces": ("/api/jobs/%7Bx%7D/move", b"\xff", 400, "BadRequest"),
    "JSON that is not an object": ("/api/jobs", [1], 400, "BadRequest"),
    "an infinite number": ("/api/jobs", b'{"prompt": "x", "guidance": Infinity}', 400, "BadRequest"),
    "a lone surrogate": ("/api/jobs", b'{"prompt": "\\ud800"}', 400, "BadRequest"),
    "an unknown job": ("/api/jobs/nothing", None, 404, "MissingFile"),
    "events of an unknown job": ("/api/jobs/nothing/events", None, 404, "MissingFile"),
    "an unknown state": ("/api/jobs?state=x", None, 400, "BadRequest"),
    "an absurd limit": ("/api/jobs?limit=x", None, 400, "BadRequest"),
    "an unknown picture": ("/api/pictures/nothing/file", None, 404, "MissingFile"),
    "a path out of the gallery": ("/api/pictures/..%2f..%2fgallery.db/file", None, 404, "BadRequest"),
    "a path out of the uploads": ("/api/uploads/..%2fgallery%2fgallery.db", None, 404, "BadRequest"),
    "no route": ("/api/nothing", None, 404, "BadRequest"),
    "no such method": ("/api/health", {}, 405, "BadRequest"),
    "an SVG": ("/api/uploads", SVG, 422, "BadFile"),
    "an SVG with a PNG signature": ("/api/uploads", b"\x89PNG\r\n\x1a\n" + SVG, 422, "BadFile"),
    "nothing uploaded": ("/api/uploads", b"", 422, "BadFile"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_every_error_has_the_same_shape_and_its_own_status(here: str, case: str) -> None:
    path, body, status, kind = WRONG[case]
    headers = {"Content_Type": "application/json"} if path.startswith("/api/jobs") else {}
    answer = ask(here, path, body, Accept_Language="zh-CN,zh;q=0.9", **headers)
    assert (answer.status, answer.error["type"]) == (status, kind), answer.body
    assert answer.error["message"] == answer.error["zh"]
    assert re.search("[\u4e00-\u9fff]", answer.error["zh"])
    assert not re.search("[\u4e00-\u9fff]", answer.error["en"])
    assert ask(here, "/api/jobs").json == {"jobs": []}


INVALID = {
    "text for a number": ("/api/jobs?limit=many", None, "limit", "limit 应当是整数，而不是 many。"),
    "a fraction for a whole number": ("/api/pictures?limit=1.5", None, "limit", "limit 应当是整数，而不是 1.5。"),
    "too small": ("/api/pictures?limit=0", None, "limit", "limit 应当不小于 1，而不是 0。"),
    "too large": ("/api/pictures?limit=501", None, "limit", "limit 应当不大于 500，而不是 501。"),
    "neither true nor false": ("/api/pictures?starred=perhaps", None, "starred", "starred 应当是 true 或 false，而不是 perhaps。"),
    "text for a date": ("/api/pictures?since=yesterday", None, "since", None),
    "an impossible date": ("/api/pictures?since=2026-13-45", None, "since", None),
    "a text for a list": ("/api/stars", {"pictures": "ab"}, "pictures", "pictures 应当是列表，而不是 ab。"),
    "a number in a list of text": ("/api/stars", {"pictures": [1]}, "pictures.0", "pictures.0 应当是文字，而不是 1。"),
    "a missing field": ("/api/stars", {}, "pictures", "缺少 pictures。"),
    "a list for an object": ("/api/jobs", [1], "body", None),
    "text for an object": ("/api/jobs", "sea", "body", None),
}  # fmt: skip


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_field_is_named_in_the_callers_language(here: str, case: str) -> None:
    path, body, field, zh = INVALID[case]
    answer = ask(here, path, body, Accept_Language="zh-CN")
    assert (answer.status, answer.error["param"]) == (400, field), answer.body
    assert answer.error["message"] == answer.error["zh"]
    assert zh in (None, answer.error["zh"])
    sent = re.sub(r".*=", "", path) if body is None else "ab|sea"
    latin = re.sub(f"JSON|true|false|T|Z|{field}|{sent}", "", answer.error["zh"])
    assert not re.search("[A-Za-z]", latin), answer.error["zh"]  # none of pydantic's English


def test_a_collection_gets_another_name_and_is_taken_apart(gallery: Gallery, here: str) -> None:
    ids = [gallery.add(picture(seed=seed)).id for seed in (901, 902)]
    for name in ("winter", "taken/冬"):
        assert ask(here, "/api/collections", {"name": name, "pictures": ids}).status == 200
    renamed = ask(here, "/api/collections", {"name": "winter", "to": " 冬夜  & snow "}, method="PATCH")
    assert renamed.json == {"taken/冬": 2, "冬夜 & snow": 2}
    refusals = (({"name": "winter", "to": "b"}, 404), ({"name": "冬夜 & snow", "to": "taken/冬"}, 409))
    for body, status in refusals:
        answer = ask(here, "/api/collections", body, method="PATCH")
        assert answer.status == status, answer.body
        assert "taken/冬" in answer.error["en"] or "winter" in answer.error["en"]
    apart = ask(here, f"/api/collections?{urlencode({'name': 'taken/冬'})}", method="DELETE")
    assert apart.json == {"pictures": ids}
    assert ask(here, "/api/collections?name=winter", method="DELETE").status == 404
    assert gallery.get(ids[0]).collections == ("冬夜 & snow",)
    gallery.annotations.delete_collection("冬夜 & snow")


# Every route with a body whose fields are arguments, and what else has to be in it; and the routes that take no body.
BODIES = {
    "/api/stars": {"pictures": []}, "/api/tags": {"name": "a", "pictures": []},
    "/api/collections": {"name": "a", "pictures": []}, "PATCH /api/collections": {"name": "a", "to": "b"}, "/api/trash": {"pictures": []},
    "/api/trash/restore": {"pictures": []}, "/api/pictures/{picture}/note": {"note": "a"},
    "/api/jobs/{job}/move": {"position": 0}, "/api/jobs/{job}/cancel": {}, "/api/jobs/{job}/retry": {},
    "/api/catalogue": {"title": "a", "pictures": ["abcd"]}, "/api/zip": {"pictures": ["abcd"]},
    "/api/prompt": {"prompt": "a"}, "/api/jobs": {"prompt": "a", "width": 128, "height": 128},
}  # fmt: skip


def test_what_no_route_reads_is_refused_by_name_on_every_route(app: object, here: str) -> None:
    document = app.openapi()  # type: ignore[attr-defined]
    routes = [(path, method) for path, methods in document["paths"].items() for method in methods]
    for path, method in routes:
        address = re.sub(r"{\w+}", "abcd", path)
        body = BODIES.get(f"{method.upper()} {path}", BODIES.get(path))
        if method in ("get", "delete"):
            body = None
        for query, name in (
            ("nonsense=1", "nonsense"),
            ("limit=1&limit=2&lang=en", "limit"),
            ("LANG=zh", "LANG"),
        ):
            answer = ask(here, f"{address}?{query}", body, method=method.upper())
            error = answer.json if path.startswith("/sdapi/") else answer.error
            assert (answer.status, error["param"]) == (400, name), (path, answer.body)
        assert [one["name"] for one in document["paths"][path][method]["parameters"]].count("lang") == 1
        if method in ("post", "put", "patch") and path in BODIES:
            answer = ask(here, address, {**body, "nonsense": 1}, method=method.upper())
            assert answer.status == 400, (path, answer.body)
            assert "nonsense" in answer.error["en"]
            assert "nonsense" in answer.error["zh"]
    ours = {
        path for path, method in routes if method in ("post", "put", "patch") and path.startswith("/api/")
    }
    assert ours - {"/api/uploads", "/api/pictures", "/api/loras/{name}"} <= set(BODIES)  # these read files
    bodies = [
        schema for name, schema in document["components"]["schemas"].items() if name.startswith("Body_")
    ]
    assert len(bodies) == 10
    assert all(schema["additionalProperties"] is False for schema in bodies)


@pytest.mark.parametrize("body", [b"[]", b"1", b"x", b'"a"'])
def test_a_route_without_a_body_refuses_one(here: str, body: bytes) -> None:
    answer = ask(here, "/api/jobs/abcd/cancel", body)
    assert (answer.status, answer.error["param"]) == (400, "body")
    assert ask(here, "/api/trash", body, method="DELETE").status == 400
    assert ask(here, "/api/trash", method="DELETE").status == 200


def test_a_decompression_bomb_and_a_too_large_body_are_refused(here: str) -> None:
    refused = ask(here, "/api/uploads", png(width=30_000, height=30_000))
    assert (refused.status, refused.error["type"]) == (422, "BadFile")
    large = b'{"prompt": "' + b"x" * 2 * api.MAX_BODY + b'"}'
    too_large = ask(here, "/api/jobs", large)
    assert (too_large.status, too_large.error["type"]) == (413, "BadRequest")


def test_an_upload_is_accepted_as_init_image(here: str, gallery: Gallery) -> None:
    up = ask(here, "/api/uploads", picture(size=128).encode("webp"))
    assert (up.status, up.json["width"]) == (201, 128)
    shown = ask(here, "/api/uploads/" + up.json["init_image"].removeprefix("upload:"))
    assert (shown.headers["content-type"], shown.body[:4]) == ("image/png", b"\x89PNG")
    form = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="../../x.svg"\r\nContent-Type: image/svg+xml\r\n\r\n'
        + picture(size=128).encode("webp")
        + b"\r\n--x--\r\n"
    )
    same = ask(here, "/api/uploads", form, Content_Type="multipart/form-data; boundary=x")
    assert same.json == up.json
    fields = {"prompt": "x", "init_image": up.json["init_image"], "strength": 0.5}
    job = ask(here, "/api/jobs", fields).json
    assert Path(job["request"]["init_image"]).parent.name == "uploads"
    ask(here, f"/api/jobs/{job['id']}/cancel", {})


def test_foreign_hosts_and_origins_are_refused(here: str) -> None:
    port = here.rsplit(":", 1)[1]
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "", "192.168.1.5"):
        assert ask(here, "/api/health", Host=host).status == 421, host
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", "LOCALHOST"):
        assert ask(here, "/api/health", Host=host).status == 200, host
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "http://localhost"):
        assert ask(here, "/api/jobs", {"prompt": "x"}, Origin=origin).status == 403, origin
    refused = ask(here, "/api/health", Origin="null", Accept_Language="zh")
    assert refused.error["message"] == refused.error["zh"]
    assert ask(here, "/api/health", Origin=here).status == 200
    assert ask(here, "/api/pictures", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors").status == 403
    assert ask(here, "/api/health", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate").status == 200
    assert "access-control-allow-origin" not in ask(here, "/api/health", Origin=here).headers


def test_on_a_network_every_request_needs_the_token(network: str) -> None:
    refused = ask(network, "/api/health")
    assert (refused.status, refused.error["type"]) == (401, "Unauthorized")
    for wrong in ({"Authorization": "Bearer sesam"}, {"Cookie": "starry_token=x"}, {"Cookie": "\x01;;="}):
        assert ask(network, "/api/health", **wrong).status == 401
    assert ask(network, "/api/health?token=wrong").status == 401
    assert ask(network, "/api/health", Authorization="Bearer sesame").status == 200

    first = ask(network, "/gallery?lang=zh&token=sesame&picture=ab")
    assert (first.status, first.headers["location"]) == (303, "/gallery?lang=zh&picture=ab")
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert ask(network, "/api/health", Cookie=cookie.split(";")[0]).status == 200

    for host, status in (("192.168.1.5:8470", 200), ("[fe80::1]", 200), ("evil.example", 421)):
        assert ask(network, "/api/health", Host=host, Authorization="Bearer sesame").status == status
    assert (
        ask(
            network, "/api/jobs", {"prompt": "x"}, Authorization="Bearer sesame", Origin="http://evil.example"
        ).status
        == 403
    )


def test_every_route_is_documented(here: str) -> None:
    schema = ask(here, "/api/openapi.json").json
    document = (Path(__file__).parent.parent / "docs" / "api.md").read_text("utf-8")
    written = set(re.findall(r"(?<=[`\s])(/[\w/.-]+)", document))
    for path in schema["paths"]:
        plain = re.sub(r"\{\w+\}", "ID", path)
        assert plain in written, path
    assert json.dumps(schema).count("/api/jobs/{job}/events") == 1
