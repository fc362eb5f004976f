"""Fetch a model: from a hub or its mirror, or from ModelScope, over plain HTTP; resumable, checked byte for byte.

Knows two hubs' file listings and one way to download. What is being fetched lies in ``NAME.part`` and takes its
name only when every file is whole, so a killed pull is neither a model nor lost.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from starrynight.errors import BadFile, HubUnreachable, MissingFile, StorageError, UnknownName, reason
from starrynight.models.catalogue import ModelSpec, resolve
from starrynight.models.precision_plan import is_variant
from starrynight.settings import settings

HUB = "https://huggingface.co"
MODELSCOPE = "https://www.modelscope.cn"
SOURCES = ("hub", "modelscope")
CHUNK = 1 << 20
TIMEOUT = 30  # seconds without a byte
ATTEMPTS = 3  # a dropped connection is resumed this often
SMALL_FILES = (".json", ".txt", ".model", ".jinja")

# (bytes so far, bytes in all, the file being fetched)
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Remote:
    """A file on a hub. ``sha256`` is known for large files only."""

    path: str
    size: int
    sha256: str | None
    url: str


def fetch(model: ModelSpec) -> ModelSpec:
    """The model, here: pulled from the hub (or its mirror) unless it is. Raises as ``pull``."""
    if model.base:
        if not model.place.exists():
            raise by_hand(model)
        fetch(resolve(model.base))
    if not model.here:
        pull(model.name)
    return resolve(model.name, model.base)


def pull(
    name: str, source: str = "hub", on_progress: Progress | None = None, endpoint: str | None = None
) -> Path:
    """Bring a model of the catalogue or a hub id into STARRY_HOME/models and return its folder.

    ``source`` is "hub" (huggingface.co, or the mirror in HF_ENDPOINT) or "modelscope". What a killed pull left is
    resumed. Raises HubUnreachable, MissingFile (the hub has no such model), BadFile (a checksum), StorageError.
    """
    model = resolve(name)
    if source not in SOURCES:
        raise UnknownName(("source", "来源"), source, SOURCES)
    if model.here:
        return model.place
    if model.base and model.place.is_file():  # its own file is here; what it is laid over may be pulled
        pull(model.base, source, on_progress, endpoint)
        return model.place
    repository = model.modelscope if source == "modelscope" else model.hub
    if repository is None:
        raise by_hand(model)
    listing = _modelscope_files if source == "modelscope" else _hub_files
    server = endpoint or (MODELSCOPE if source == "modelscope" else settings().hub_endpoint or HUB)
    part = model.place.with_name(model.place.name + ".part")
    with _Trouble(model, server):
        remotes = wanted(listing(server.rstrip("/"), repository))
        done, total = 0, sum(remote.size for remote in remotes)
        for remote in remotes:
            told = partial(_tell, on_progress, done, total, remote.path)
            _download(remote, part / remote.path, told)
            done += remote.size
        part.rename(model.place)
    return model.place


def _tell(on_progress: Progress | None, before: int, total: int, path: str, fresh: int) -> None:
    if on_progress:
        on_progress(before + fresh, total, path)


def wanted(remotes: Sequence[Remote]) -> list[Remote]:
    """The files a pipeline needs: configurations, and plain safetensors, or their fp16 variant if there is no other.

    Files beside model_index.json (whole checkpoints, samples, licences) stay away, and so does every other format.
    Raises MissingFile without a model_index.json.
    """
    if not any(remote.path == "model_index.json" for remote in remotes):
        raise MissingFile(
            "That repository holds no model_index.json, so it is not a diffusers model.",
            "该仓库没有 model_index.json，不是 diffusers 模型。",
        )
    inside = [r for r in remotes if r.path == "model_index.json" or len(PurePosixPath(r.path).parts) == 2]
    plain = {
        PurePosixPath(r.path).parent
        for r in inside
        if r.path.endswith(".safetensors") and not is_variant(r.path)
    }
    return [
        r
        for r in inside
        if (_is_weights(r.path) and (not is_variant(r.path) or PurePosixPath(r.path).parent not in plain))
        or (r.path.endswith(SMALL_FILES) and not _is_weights(r.path))
    ]


def _is_weights(path: str) -> bool:
    return path.endswith((".safetensors", ".safetensors.index.json", ".safetensors.index.fp16.json"))


def _hub_files(server: str, repository: str) -> list[Remote]:
    listing = _get_json(f"{server}/api/models/{repository}?blobs=true")
    return [
        Remote(
            path=_safe(file["rfilename"]),
            size=int(file.get("size") or 0),
            sha256=(file.get("lfs") or {}).get("sha256"),
            url=f"{server}/{repository}/resolve/main/{urllib.parse.quote(file['rfilename'])}",
        )
        for file in listing["siblings"]
    ]


def _modelscope_files(server: str, repository: str) -> list[Remote]:
    listing = _get_json(f"{server}/api/v1/models/{repository}/repo/files?Revision=master&Recursive=true")
    return [
        Remote(
            path=_safe(file["Path"]),
            size=int(file["Size"]),
            sha256=file.get("Sha256") or None,
            url=f"{server}/api/v1/models/{repository}/repo?Revision=master&FilePath={urllib.parse.quote(file['Path'])}",
        )
        for file in listing["Data"]["Files"]
        if file.get("Type") != "tree"
    ]


def _safe(path: str) -> str:
    """A listing's path, which must stay inside the model's folder."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path:
        raise BadFile(
            f"The hub lists a file outside the model: “{path}”.", f"模型库列出了目录之外的文件：“{path}”。"
        )
    return str(parts)


def _open(url: str, headers: dict[str, str] | None = None) -> Any:
    """Ask for ``url``; the hub's own server, and no other it sends us to, is shown the user's token."""
    request = urllib.request.Request(url, headers=headers or {})
    if url.startswith(HUB + "/"):
        from huggingface_hub import get_token

        if token := get_token():
            request.add_unredirected_header("Authorization", f"Bearer {token}")
    return urllib.request.urlopen(request, timeout=TIMEOUT)


def _get_json(url: str) -> Any:
    with _open(url) as answer:
        return json.load(answer)


def _download(remote: Remote, target: Path, told: Callable[[int], None]) -> None:
    """One file, going on where an earlier attempt stopped, and checked at the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    started = target.with_name(target.name + ".incomplete")
    if not target.exists():
        for attempt in range(ATTEMPTS):
            try:
                _receive(remote, started, told)
                break
            except (http.client.IncompleteRead, ConnectionError, TimeoutError):
                if attempt == ATTEMPTS - 1:
                    raise
        _check(remote, started)
        started.rename(target)
    told(remote.size)


def _receive(remote: Remote, started: Path, told: Callable[[int], None]) -> None:
    have = started.stat().st_size if started.exists() else 0
    if remote.size and have >= remote.size:
        return
    with _open(remote.url, {"Range": f"bytes={have}-"} if have else {}) as answer:
        if have and answer.status != 206:  # this server begins again
            have = 0
        with started.open("ab" if have else "wb") as file:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                have += len(chunk)
                told(have)
    if have < remote.size:
        raise http.client.IncompleteRead(b"", remote.size - have)


def _check(remote: Remote, started: Path) -> None:
    size = started.stat().st_size
    right = not remote.size or size == remote.size
    if right and remote.sha256:
        with started.open("rb") as file:
            right = hashlib.file_digest(file, "sha256").hexdigest() == remote.sha256.lower()
    if not right:
        started.unlink()
        raise BadFile(
            f"“{remote.path}” arrived damaged (its size or SHA-256 is wrong); pull again, or from another source.",
            f"“{remote.path}”下载后校验失败（大小或 SHA-256 不符）；请重新下载，或换一个来源。",
        )


class _Trouble:
    """What can go wrong on the way, as sentences that say what to do instead."""

    def __init__(self, model: ModelSpec, server: str) -> None:
        self.model, self.server = model, server

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        if isinstance(error, urllib.error.HTTPError) and error.code in (401, 403, 404):
            raise MissingFile(
                f"{self.server} has no “{self.model.name}” for us ({error.code}): check the id, or accept its licence "
                "on the hub's page and set HF_TOKEN.",
                f"{self.server} 上无法取得“{self.model.name}”（{error.code}）：请检查 id，或在模型页面同意许可。",
            ) from error
        if isinstance(error, OSError) and error.errno in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EACCES,
            errno.EROFS,
        ):
            raise StorageError(
                f"“{self.model.name}” cannot be stored in {self.model.place.parent}: {error.strerror}.",
                f"无法把“{self.model.name}”存入 {self.model.place.parent}：{reason(error)[1]}。",
            ) from error
        if isinstance(
            error, (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)
        ):
            raise self.unreachable() from error
        if isinstance(error, (ValueError, KeyError, TypeError)) and not isinstance(error, BadFile):
            raise self.unreachable() from error  # a proxy's page where a listing should be

    def unreachable(self) -> HubUnreachable:
        name, folder = self.model.name, self.model.place
        return HubUnreachable(
            f"“{name}” is not here and {self.server} does not answer. Try `starry models pull {name} --source "
            f"modelscope`, a mirror (HF_ENDPOINT=https://hf-mirror.com), or copy its folder to {folder}. "
            "Firefly paints without any download.",
            f"本机没有“{name}”，且无法连接 {self.server}。可尝试 `starry models pull {name} --source modelscope`、"
            f"镜像（HF_ENDPOINT=https://hf-mirror.com），或把模型文件夹复制到 {folder}。萤火（firefly）无需下载即可作画。",
        )


def by_hand(model: ModelSpec) -> MissingFile:
    """What to do about a model whose file no hub that we know of carries."""
    base = (
        f", and fetch the model it is laid over: starry models pull {model.base}",
        f"，再下载它所依附的底座：starry models pull {model.base}",
    )
    en, zh = base if model.base and not resolve(model.base).here else ("", "")
    return MissingFile(
        f"“{model.name}” is on no hub we know of: download its .safetensors file from where its author publishes it, "
        f"put it at {model.place} (under this name){en}.",
        f"已知的模型库中没有“{model.name}”：请从作者发布处下载它的 .safetensors 文件，放到 {model.place}（文件名须一致）{zh}。",
    )
