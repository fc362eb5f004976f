"""A painter whose model is another server's: each picture is one request of OpenAI's Images API, checked when it is decoded.

Fields beyond OpenAI's (seed, num_inference_steps, guidance_scale, strength) are sent as vLLM-Omni and Starry Night take them. One
that the server refuses by name is left out from then on, and the recipe says so. Imports no torch.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import json
import threading
from collections.abc import Callable, Collection, Coroutine, Iterator
from typing import Any

import numpy as np
from PIL import Image

from starrynight.errors import BadFile, RemoteError
from starrynight.i18n import Text
from starrynight.metadata.pixels import Limits, read_image
from starrynight.models import catalogue
from starrynight.models.catalogue import ModelSpec
from starrynight.models.fit import Fit
from starrynight.numerics.precision import PrecisionPlan
from starrynight.painting import checking
from starrynight.painting.canvas import canvas_of
from starrynight.painting.results import GeneratedImage, Refused, Step, of_pixels
from starrynight.prompt_syntax import drawn_of
from starrynight.request import PaintRequest
from starrynight.text import clean, parse_json
from starrynight.verdict import Verdict, split

OPTIONAL = ("seed", "num_inference_steps", "guidance_scale", "strength", "response_format")
LOOK_EVERY = 0.25  # seconds between two looks at whether the job was cancelled
CONNECT, ANSWER = 10.0, 3600.0  # seconds
MAX_ANSWER = 96 << 20  # bytes
LASTING = (401, 404, 405, 407, 429)  # of the whole server, not of one picture
LIMITS = Limits(pixels=40_000_000, side=16_384)


class RemotePainter:
    """What ``Studio`` needs of a painter. ``plan`` is empty: which formats the other server computes in is its own affair."""

    def __init__(self, spec: ModelSpec) -> None:
        assert spec.remote is not None
        self.spec, self.remote = spec, spec.remote
        self.plan, self.fits = PrecisionPlan(()), tuple[Fit, ...]()
        self._refused: set[str] = set()

    def serves(self, request: PaintRequest, device: str | None = None, attention: str = "native") -> bool:
        return catalogue.find(request.model) == self.spec

    @property
    def provenance(self) -> dict[str, Any]:
        """For the recipe: where it was painted, never the key."""
        return {"name": self.spec.name, "pipeline": "OpenAI Images", "source": self.remote.url, "remote_model": self.remote.model,
                "licence": "", "fingerprint": ""}  # fmt: skip

    def warnings(self, request: PaintRequest) -> list[tuple[str, str]]:
        return checking.warnings_for(request, self.spec)

    def paint(
        self, request: PaintRequest, on_step: Callable[[Step], None] | None = None, skip: Collection[int] = ()
    ) -> Iterator[GeneratedImage | Refused]:
        """As ``Painter.paint``. ``on_step`` is called while the server paints, with a step that is not known (-1).

        A picture that the server refuses or that cannot be decoded is returned as Refused. Raises RemoteError for what the
        others would meet too: no answer, a wrong key or address, too many requests.
        """
        checking.check(request, self.spec)
        for index in range(request.count):
            if index in skip:
                continue
            try:
                yield self._paint_one(request, index, on_step)
            except RemoteError as error:
                if error.lasting:
                    raise
                yield Refused(
                    index,
                    request.seed_of(index),
                    error,
                    Verdict("refuse", (error.en,), (), None, (error.zh,)),
                )

    def _paint_one(
        self, request: PaintRequest, index: int, on_step: Callable[[Step], None] | None
    ) -> GeneratedImage:
        seed = request.seed_of(index)
        prompt, negative = checking.words_of(request, self.spec, seed)
        fields = {
            "prompt": prompt.text, "n": 1, "size": f"{request.width}x{request.height}", "response_format": "b64_json",
            "seed": seed, "num_inference_steps": request.steps, "guidance_scale": request.guidance,
        } | ({"negative_prompt": negative.text} if negative.text else {}) | (
            {"model": self.remote.model} if self.remote.model else {}
        )  # fmt: skip
        image, canvas = None, canvas_of(request)
        if canvas is not None:
            out = io.BytesIO()
            canvas.picture.save(out, "PNG")
            image, fields["strength"] = out.getvalue(), request.strength

        def look() -> None:
            if on_step is not None:
                on_step(Step(index, -1, request.steps, lambda: None, None))

        pixels = self._decoded(self._ask(fields, image, look))
        remarks = (
            *(canvas.remarks if canvas else ()),
            *prompt.notes,
            *negative.notes,
            *self._remarks(request, pixels),
        )
        en, zh = split(remarks)
        return GeneratedImage(
            pixels=pixels, index=index, seed=seed, prompt=prompt.text, negative_prompt=negative.text, sampler="remote",
            verdict=of_pixels(Verdict("unchecked", en, reasons_zh=zh), pixels), wildcards=drawn_of(prompt, negative),
        )  # fmt: skip

    def _remarks(self, request: PaintRequest, pixels: np.ndarray) -> Iterator[Text]:
        """For the recipe: what is known of a picture, float32 [H, W, 3], that another server painted."""
        host = self.remote.host
        yield Text(
            f"painted at {host}: only the decoded picture was checked",
            f"在 {host} 作画：只检查了解码后的图片",
        )
        if left := sorted(self._refused - {"response_format"}):
            yield Text(f"{host} does not take {', '.join(left)}", f"{host} 不接受 {'、'.join(left)}")
        height, width = pixels.shape[:2]
        if (width, height) != (request.width, request.height):
            yield Text(
                f"{host} sent {width}×{height} for {request.width}×{request.height}",
                f"{host} 发来 {width}×{height}，而非 {request.width}×{request.height}",
            )

    def _ask(self, fields: dict[str, Any], image: bytes | None, look: Callable[[], None]) -> Any:
        """The answer's JSON. Raises RemoteError with the server's own sentence."""
        while True:
            sent = {name: value for name, value in fields.items() if name not in self._refused}
            status, body = _run(self._post(sent, image), look)
            answer = parse_json(body.decode("utf-8", "replace"))
            if status == 200:
                return answer
            error = answer.get("error") if isinstance(answer, dict) else None
            error = error if isinstance(error, dict) else {}
            param = error.get("param")
            if (
                status in (400, 422)
                and isinstance(param, str)
                and param in OPTIONAL
                and param in sent
                and _is_unknown(error)
            ):
                self._refused.add(param)
                continue
            said = clean(str(error.get("message") or ""))[:300] or "no reason was given"
            if key := self.remote.key():
                said = said.replace(key, "***")
            raise self._failed(
                f"answered {status}: {said.rstrip('.')}", f"回答 {status}：{said.rstrip('.。')}",
                lasting=status in LASTING or 300 <= status < 400,
            )  # fmt: skip

    async def _post(self, fields: dict[str, Any], image: bytes | None) -> tuple[int, bytes]:
        import httpx2 as httpx

        key, path = self.remote.key(), "generations" if image is None else "edits"
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        content: dict[str, Any] = {"json": fields}
        if image is not None:
            texts = {
                name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()
            }
            content = {"data": texts, "files": {"image": ("image.png", image, "image/png")}}
        timeout = httpx.Timeout(ANSWER, connect=CONNECT)
        client = httpx.AsyncClient(
            timeout=timeout, trust_env=not self.remote.is_loopback, follow_redirects=False
        )
        try:
            async with (
                client,
                client.stream(
                    "POST", f"{self.remote.url}/images/{path}", headers=headers, **content
                ) as answer,
            ):
                body = bytearray()
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > MAX_ANSWER:
                        raise self._failed("answered with too much", "的回答太大")
                return answer.status_code, bytes(body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = type(error).__name__
            raise self._failed(
                f"does not answer ({why}); is it running", f"没有响应（{why}）；它在运行吗", lasting=True
            ) from error

    def _decoded(self, answer: Any) -> np.ndarray:
        """float32 [H, W, 3] in 0..1 of the one picture in an answer."""
        data = answer.get("data") if isinstance(answer, dict) else None
        first = data[0] if isinstance(data, list) and data and isinstance(data[0], dict) else {}
        try:
            encoded = first["b64_json"]
            image: Image.Image = read_image(base64.b64decode(encoded, validate=True), LIMITS)
        except (KeyError, TypeError, ValueError, binascii.Error):
            raise self._failed("sent no picture in b64_json", "没有在 b64_json 中发送图片") from None
        except BadFile as error:
            raise self._failed("sent a picture that cannot be decoded", "发来的图片无法解码") from error
        return np.asarray(image, np.float32) / 255.0

    def _failed(self, en: str, zh: str, lasting: bool = False) -> RemoteError:
        error = RemoteError(
            f"{self.spec.name}, painted at {self.remote.host}, {en}.",
            f"{self.spec.name}（在 {self.remote.host} 作画）{zh}。",
        )
        error.lasting = lasting
        return error


def _is_unknown(error: dict[str, Any]) -> bool:
    """Whether a field's name is refused, not its value: OpenAI's code, or what servers write without one."""
    words = f"{error.get('code')} {error.get('message')}".lower()
    return any(word in words for word in ("unknown", "unsupported", "not supported", "unrecognized", "extra"))


def _run(call: Coroutine[Any, Any, tuple[int, bytes]], look: Callable[[], None]) -> tuple[int, bytes]:
    """Run a call in a thread of its own, because the caller may have an event loop. If ``look`` raises, the call is cancelled,
    which closes its connection: the server notices that nobody waits.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    future = asyncio.run_coroutine_threadsafe(call, loop)
    try:
        while True:
            try:
                return future.result(LOOK_EVERY)
            except TimeoutError:
                if future.done():
                    raise
                look()
    finally:
        future.cancel()
        asyncio.run_coroutine_threadsafe(_rest(), loop).result(CONNECT)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(CONNECT)
        loop.close()


async def _rest() -> None:
    """Wait for everything else of this loop."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)
