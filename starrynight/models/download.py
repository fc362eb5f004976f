"""Download a model from the Hugging Face hub, a mirror of it, or ModelScope, over plain HTTP.

The files go to ``NAME.part``, which is renamed when all of them are complete, so an interrupted download is
never taken for a model. It resumes inside a file, and the SHA-256 of every large file is checked.

Why not ``huggingface_hub.snapshot_download``: version 2.4.0, measured 2026-11 against a local server, starts
a file anew after a kill (60 of 60 MB sent again; here 24), compares sizes only, so that a spoiled file of the
right size passes, and needs HEAD requests, which a plain mirror may not answer.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from starrynight.errors import BadFile, HubUnreachable, MissingFile, StarryError, UnknownName
from starrynight.i18n import Text
from starrynight.models import network
from starrynight.models.catalogue import ModelSpec, find, is_here, lacking, table_names
from starrynight.models.weights import is_variant
from starrynight.progress import OnProgress
from starrynight.settings import settings
from starrynight.storage import make_folder, storage_error

HUB = "https://huggingface.co"
MODELSCOPE = "https://www.modelscope.cn"
SOURCES = ("hub", "modelscope")
CHUNK = 1 << 20  # bytes
ATTEMPTS = 3  # per file; each resumes where the connection dropped
_CONFIGS = (".json", ".txt", ".model", ".jinja")
_WEIGHTS = (".safetensors", ".safetensors.index.json", ".safetensors.index.fp16.json")
_DROPPED = (http.client.IncompleteRead, ConnectionError, TimeoutError)


@dataclass(frozen=True)
class RemoteFile:
    """A file on a hub. ``size``: bytes, 0 if unknown. ``sha256``: known for large files only."""

    path: str
    size: int
    sha256: str | None
    url: str


def fetch(model: ModelSpec) -> ModelSpec:
    """``model`` as found on this machine, downloaded first if it is not there. Raises as ``pull``.

    A model of single files is not completed by a download of its base that nobody asked for: MissingFile tells what it lacks
    and the ways to bring it.
    """
    if model.base:
        if model.name in table_names() and not model.path.exists():
            raise not_on_a_hub(model)
        if not is_here(model):
            raise incomplete(model)
    if not is_here(model):
        pull(model.name)
    return find(model.name, model.base)


def pull(
    name: str,
    source: str = "hub",
    on_progress: OnProgress | None = None,
    endpoint: str | None = None,
    small: bool = False,
) -> Path:
    """Download a catalogue model or a hub id into STARRY_HOME/models and return its folder.

    ``small``: only what is no weight (configurations, tokenizers, schedules), for a model whose networks are files that the
    user has. What the folder holds already stays, and is not downloaded again if it has the right size and SHA-256.

    ``source``: "hub" (huggingface.co, or the mirror in HF_ENDPOINT) or "modelscope". ``endpoint`` replaces
    the server. ``on_progress`` receives bytes, and the file's path as the message. Continues an interrupted
    download. Raises HubUnreachable, MissingFile (the server has no such model), BadFile (wrong checksum),
    BadRequest (an address without a scheme), MissingPackage (a SOCKS proxy without PySocks) or StorageError.
    """
    model = find(name)
    if source not in SOURCES:
        raise UnknownName(Text("source", "来源"), source, SOURCES)
    if is_here(model) or (small and not model.base and (model.path / "model_index.json").is_file()):
        return model.path
    if model.base and (small or model.path.is_file()):  # only the base of these single files is missing
        pull(model.base, source, on_progress, endpoint, small)
        return model.path
    repository = model.modelscope if source == "modelscope" else model.hub
    if repository is None:
        raise not_on_a_hub(model)
    default, list_files = (MODELSCOPE, _modelscope_files) if source == "modelscope" else (HUB, _hub_files)
    mirror = settings().hub_endpoint if source == "hub" else None
    server = network.checked_server(endpoint or mirror or default, "HF_ENDPOINT" if mirror else "endpoint")
    part = model.path.with_name(model.path.name + ".part")
    with _network_errors(model, server):
        files = select_files(list_files(server, repository))
        files = [file for file in files if not (small and file.path.endswith(_WEIGHTS))]
        before, total = 0, sum(file.size for file in files)
        for file in files:

            def report(received: int, before: int = before, path: str = file.path) -> None:
                if on_progress:
                    on_progress(before + received, total, Text(path, path))

            if not _is_whole(file, model.path / file.path):
                _download(file, part / file.path, report)
            before += file.size
        _move_into(part, model.path)
    return model.path


def _is_whole(file: RemoteFile, path: Path) -> bool:
    """Whether an earlier download, or the user, has put this very file into the model's folder."""
    if not file.size or not path.is_file() or path.stat().st_size != file.size:
        return False
    if not file.sha256:
        return True
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest() == file.sha256.lower()


def _move_into(part: Path, folder: Path) -> None:
    """Make the complete download the model's folder, or the missing half of one that holds the small files."""
    if not folder.exists():
        part.rename(folder)
        return
    if part.is_dir():
        for path in sorted(part.rglob("*")):
            if path.is_file():
                target = folder / path.relative_to(part)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
        shutil.rmtree(part)


def select_files(files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """The files a pipeline needs: configurations and safetensors; the fp16 variant if there is no other.

    Other files beside model_index.json (whole checkpoints, samples, licences) and other formats are left out.
    Raises MissingFile without a model_index.json.
    """
    if not any(file.path == "model_index.json" for file in files):
        raise MissingFile(
            "That repository has no model_index.json, so it is not a diffusers model; name another one.",
            "该仓库没有 model_index.json，不是 diffusers 模型；请换一个。",
        )

    def folder(file: RemoteFile) -> PurePosixPath:
        return PurePosixPath(file.path).parent

    def is_wanted(file: RemoteFile) -> bool:
        if file.path.endswith(_WEIGHTS):
            return not is_variant(file.path) or folder(file) not in plain
        return file.path.endswith(_CONFIGS)

    inside = [f for f in files if f.path == "model_index.json" or len(PurePosixPath(f.path).parts) == 2]
    plain = {folder(f) for f in inside if f.path.endswith(".safetensors") and not is_variant(f.path)}
    return [file for file in inside if is_wanted(file)]


def _hub_files(server: str, repository: str) -> list[RemoteFile]:
    listing = _get_json(f"{server}/api/models/{repository}?blobs=true")
    return [
        RemoteFile(
            path=_safe_path(file["rfilename"]),
            size=int(file.get("size") or 0),
            sha256=(file.get("lfs") or {}).get("sha256"),
            url=f"{server}/{repository}/resolve/main/{urllib.parse.quote(file['rfilename'])}",
        )
        for file in listing["siblings"]
    ]


def _modelscope_files(server: str, repository: str) -> list[RemoteFile]:
    api = f"{server}/api/v1/models/{repository}/repo"
    listing = _get_json(f"{api}/files?Revision=master&Recursive=true")
    return [
        RemoteFile(
            path=_safe_path(file["Path"]),
            size=int(file["Size"]),
            sha256=file.get("Sha256") or None,
            url=f"{api}?Revision=master&FilePath={urllib.parse.quote(file['Path'])}",
        )
        for file in listing["Data"]["Files"]
        if file.get("Type") != "tree"
    ]


def _safe_path(path: str) -> str:
    """A listed path, unless it leads out of the model's folder. Raises BadFile."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path:
        raise BadFile(
            f"The hub lists a file outside the model's folder: “{path}”. Use another source.",
            f"模型库列出了模型文件夹之外的文件：“{path}”。请换一个来源。",
        )
    return str(parts)


def _open(url: str, headers: dict[str, str] | None = None) -> Any:
    """Open ``url``. The user's token goes to the hub's own host only, not to the hosts it redirects to."""
    request = urllib.request.Request(url, headers=headers or {})
    if url.startswith(HUB + "/"):
        from huggingface_hub import get_token

        if token := get_token():
            request.add_unredirected_header("Authorization", f"Bearer {token}")
    return network.open_url(request)


def _get_json(url: str) -> Any:
    with _open(url) as answer:
        text = answer.read()
    if _is_page(text):
        raise network.WebPage(url)
    return json.loads(text)


def _is_page(opening: bytes) -> bool:
    return opening[:64].lstrip().lower().startswith((b"<!doctype", b"<html"))


def _download(file: RemoteFile, target: Path, report: Callable[[int], None]) -> None:
    """Download one file, continue an earlier attempt, and check it before it gets its name."""
    make_folder(target.parent)
    incomplete = target.with_name(target.name + ".incomplete")
    if not target.exists():
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _receive(file, incomplete, report)
                break
            except _DROPPED:
                if attempt == ATTEMPTS:
                    raise
        _check(file, incomplete)
        incomplete.rename(target)
    report(file.size)


def _receive(file: RemoteFile, incomplete: Path, report: Callable[[int], None]) -> None:
    """Append the bytes that ``incomplete`` lacks. Raises IncompleteRead if the connection ends early."""
    received = incomplete.stat().st_size if incomplete.exists() else 0
    if file.size and received >= file.size:
        return
    with _open(file.url, {"Range": f"bytes={received}-"} if received else {}) as answer:
        if answer.status != 206:  # the server ignores ranges and sends the whole file
            received = 0
        with incomplete.open("ab" if received else "wb") as out:
            while chunk := answer.read(CHUNK):
                out.write(chunk)
                received += len(chunk)
                report(received)
    if received < file.size:
        raise http.client.IncompleteRead(b"", file.size - received)


def _check(file: RemoteFile, incomplete: Path) -> None:
    """Compare size and SHA-256, where known. A damaged file is deleted; raises BadFile, or WebPage for a page of HTML."""
    with incomplete.open("rb") as data:
        page = _is_page(data.read(64))
    if page:
        incomplete.unlink()
        raise network.WebPage(file.url)
    matches = not file.size or incomplete.stat().st_size == file.size
    if matches and file.sha256:
        with incomplete.open("rb") as data:
            matches = hashlib.file_digest(data, "sha256").hexdigest() == file.sha256.lower()
    if not matches:
        incomplete.unlink()
        raise BadFile(
            f"“{file.path}” arrived damaged (wrong size or SHA-256); pull again, or from another source.",
            f"“{file.path}”下载后校验失败（大小或 SHA-256 不符）；请重新下载，或换一个来源。",
        )


@contextmanager
def _network_errors(model: ModelSpec, server: str) -> Iterator[None]:
    """Turn network and disk errors into errors that name the next step."""
    try:
        yield
    except StarryError:
        raise
    except Exception as error:
        if isinstance(error, urllib.error.HTTPError) and error.code in (401, 403, 404):
            raise _refused(model, server, error.code) from error
        if not network.is_of_the_network(error):
            raise (storage_error(model.path, error) if isinstance(error, OSError) else error) from error
        raise _unreachable(model, network.cause(error, server)) from error


def _refused(model: ModelSpec, server: str, code: int) -> MissingFile:
    return MissingFile(
        f"{server} refuses “{model.name}” ({code}): check the id, or accept its licence on the hub's page and "
        "set HF_TOKEN.",
        f"{server} 上无法取得“{model.name}”（{code}）：请检查 id，或在模型页面同意许可并设置 HF_TOKEN。",
    )


def _unreachable(model: ModelSpec, why: Text) -> HubUnreachable:
    name, folder = model.name, model.path
    return HubUnreachable(
        f"“{name}” is not on this machine and {why.en}. Try `starry models pull {name} --source "
        f"modelscope`, a mirror (HF_ENDPOINT=https://hf-mirror.com), or copy its folder to {folder}. "
        "Firefly needs no download.",
        f"本机没有“{name}”，且{why.zh}。可尝试 `starry models pull {name} --source modelscope`、"
        f"镜像（HF_ENDPOINT=https://hf-mirror.com），或把模型文件夹复制到 {folder}。萤火（firefly）无需下载即可作画。",
    )


def not_on_a_hub(model: ModelSpec) -> MissingFile:
    """The error for a model whose file is on no known hub: how to install it by hand."""
    en = zh = ""
    if model.base and not is_here(find(model.base)):
        en = f", and download its base model: starry models pull {model.base}"
        zh = f"，再下载它的底座模型：starry models pull {model.base}"
    return MissingFile(
        f"“{model.name}” is on no known hub: download its .safetensors file from its author and save it as "
        f"{model.path}{en}.",
        f"已知的模型库中没有“{model.name}”：请从作者发布处下载它的 .safetensors 文件，保存为 {model.path}{zh}。",
    )


def incomplete(model: ModelSpec) -> MissingFile:
    """The error for a model of single files that lacks some: those that have moved, or both ways to bring the others."""
    title = model.en
    gone = [path for path in dict.fromkeys(model.parts.values()) if not path.is_file()]
    if gone:
        return MissingFile(
            f"“{title}” was put together with “{gone[0]}”, which is no longer there; put it together again: starry models add "
            f"{title} --overwrite …",
            f"“{title}”用到的“{gone[0]}”已不在原处；请重新拼装：starry models add {title} --overwrite …",
        )
    missing = lacking(model)
    if missing == ["model_index.json"]:
        # Which networks the parts do not cover is known once the base's own index is here.
        networks = [name for name in ("text_encoder", "vae") if name not in model.parts]
        ways = _ways(model, networks) if networks else Text("", "")
        return MissingFile(
            f"“{title}” needs the small files of {model.base} (configurations, tokenizer): starry models pull {model.base} "
            f"--small.{ways.en}",
            f"“{title}”还缺 {model.base} 的小文件（配置、分词器）：starry models pull {model.base} --small。{ways.zh}",
        )
    ways = _ways(model, missing)
    return MissingFile(
        f"“{title}” brings no {' and no '.join(missing)}, and {model.base} is not on this machine in full.{ways.en}",
        f"“{title}”不含 {'、'.join(missing)}，而本机没有完整的 {model.base}。{ways.zh}",
    )


def _ways(model: ModelSpec, missing: Sequence[str]) -> Text:
    """Both ways to bring networks: files that the user has, or a download of the base."""
    options = []
    if any(name in model.parts for name in ("transformer", "unet")):
        options.append(f"--transformer {model.path.name}")
    options += ["--text-encoder FILE" for name in (*model.parts, *missing) if name.startswith("text_encoder")]
    options += ["--vae FILE"] if "vae" in (*model.parts, *missing) else []
    command = f"starry models add NAME {' '.join(options)}"
    return Text(
        f" Put it together from files that you have: {command}; or download the base: starry models pull {model.base}.",
        f"可用已有的文件拼装：{command}；或下载底座：starry models pull {model.base}。",
    )
