"""Whether a request can be painted, checked before anything heavy is loaded; and warnings about it.

A size that the model cannot paint is refused, never rounded. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from starrynight import prompt_syntax
from starrynight.errors import BadRequest
from starrynight.i18n import Text
from starrynight.metadata import pixels
from starrynight.metadata.files import PIXEL_FORMATS, open_picture
from starrynight.models import embeddings, habits, lora, vocabulary, wildcards
from starrynight.models.catalogue import ModelSpec
from starrynight.models.embeddings import Source
from starrynight.models.vocabulary import Vocabulary
from starrynight.painting import schedulers, styles
from starrynight.painting.canvas import check_mask
from starrynight.prompt_syntax import Words
from starrynight.request import PaintRequest, check_size
from starrynight.text import excerpt


def check(request: PaintRequest, model: ModelSpec) -> None:
    """Raises BadRequest (WrongSize; UnknownName for a style, sampler or LoRA) or BadFile (a LoRA, the init image)."""
    if model.remote:
        _check_remote(request, model)
    model = as_asked(request, model)
    check_size(request.width, request.height, model.multiple, model.smallest, model.largest)
    words_of(request, model, request.seed_of(0))
    if request.sampler is not None:
        flow = (
            model.flow if not model.habits.unknown else schedulers.key_of(request.sampler) in schedulers.FLOW
        )
        class_name, _ = schedulers.find(request.sampler, flow)
        sampler = schedulers.key_of(request.sampler)
        habits.check_sampler(model.habits, sampler, class_name, Text(model.en, model.zh))
    for name, *_ in request.loras:
        lora.find(name)
    if request.init_image is not None:
        open_picture(request.init_image, PIXEL_FORMATS).close()
        check_mask(request)
        if int(request.steps * request.strength) < 1:
            raise BadRequest(
                f"Strength {request.strength:g} of {request.steps} steps leaves none to take; raise either.",
                f"强度 {request.strength:g} 配 {request.steps} 步，一步也不剩；请提高其一。",
            )


def _check_remote(request: PaintRequest, model: ModelSpec) -> None:
    check_local(
        model, precision=request.precision != "auto", sampler=request.sampler, prediction=request.prediction,
        loras=request.loras, mask=request.mask, extend=request.extend, variation=request.variation, variety=request.variety, verify=request.verify,
        keep_packed=request.keep_packed,
    )  # fmt: skip


def check_local(model: ModelSpec, **given: object) -> None:
    """Raises BadRequest for what only models on this machine do, by its name, where it is given for a remote one."""
    for name, value in given.items():
        if model.remote and value:
            raise BadRequest(
                f"{name} applies to models on this machine, and {model.en}; leave it out.",
                f"{name} 只适用于本机上的模型，而 {model.zh}；请不要给出。",
                name,
            )


def as_asked(request: PaintRequest, model: ModelSpec) -> ModelSpec:
    """The model under the request's ``prediction``. Raises BadRequest or BadFile as ``habits.asked``."""
    says = habits.asked(model.habits, request.prediction, Text(model.en, model.zh))
    if says == model.habits:
        return model
    return replace(model, habits=says, flow=says.prediction == "flow" or says.own_flow)


def words_of(request: PaintRequest, model: ModelSpec, seed: int) -> tuple[Words, Words]:
    """What the model reads in the picture of ``seed``: the prompt with its style, and the negative prompt.

    Raises BadRequest if a prompt holds nothing but tags, what ``wildcards.filled`` raises, and what ``embeddings.choose`` and
    ``read`` raise for embedding:name.
    """
    weighted, known = model.habits.weighted, inversions_of(request, model)
    prompt, negative = (
        _as_captioned(_read(text, seed, weighted, known), model)
        for text in (request.prompt, request.negative_prompt)
    )
    if not prompt.text.strip():
        raise BadRequest(
            "The prompt holds nothing but tags and comments; describe the picture.",
            "提示词里只有标签和注释；请写下想画什么。",
        )
    styled, _ = styles.styled(prompt.text, request.style)
    shift, end = len(styles.prefix(prompt.text, request.style)), len(styled)
    weights = tuple((min(a + shift, end), min(b + shift, end), factor) for a, b, factor in prompt.weights)
    mentions = tuple(
        replace(one, start=min(one.start + shift, end), end=min(one.end + shift, end))
        for one in prompt.mentions
    )
    for one in (*prompt.mentions, *negative.mentions):
        if one.explicit:
            embeddings.read(embeddings.choose(one.name, known))
    _, from_style = styles.styled(prompt.text, request.style)
    parts = [negative.text, from_style if model.negatives else ""]
    against = replace(negative, text=", ".join(part for part in parts if part))
    return replace(prompt, text=styled, weights=weights, mentions=mentions), against


def inversions_of(request: PaintRequest, model: ModelSpec) -> dict[str, list[Source]]:
    """The textual inversions that the request's prompts can name. Raises as ``embeddings.known`` and ``lora.find``."""
    if model.remote:
        return {}
    files = [lora.find(name) for name, *_ in request.loras]
    return embeddings.known(request.prompt + request.negative_prompt, files)


def _read(text: str, seed: int, weighted: bool, known: Collection[str] = ()) -> Words:
    filled = wildcards.filled(text, seed)
    words = prompt_syntax.read(filled.text, seed, weighted, known)
    return replace(words, filled=filled, notes=(*words.notes, *wildcards.notes(filled.text)))


def _as_captioned(words: Words, model: ModelSpec) -> Words:
    """The words as the captions of a model with a vocabulary are written; names of textual inversions stay."""
    if (known := vocabulary_of(model)) is None:
        return words
    return words.rewritten(known.as_captioned)


def _notes_on_pictures(request: PaintRequest, model: ModelSpec) -> list[tuple[str, str]]:
    """What of the words and the size of all pictures is not applied or was not trained, each once."""
    found: list[tuple[str, str]] = []
    for index in range(request.count):
        found += notes_on_training(request, model, request.seed_of(index))
        for words in words_of(request, model, request.seed_of(index)):
            found += words.notes
    return list(dict.fromkeys(found))


def vocabulary_of(model: ModelSpec) -> Vocabulary | None:
    """The words that a model was trained on, if its folder says so. Nothing is said of one put together from files."""
    return vocabulary.of_model(model.path) if model.base is None else None


def unknown_words(prompt: str, model: ModelSpec) -> list[tuple[str, tuple[str, ...]]]:
    """The words of a prompt that the model never read, each once and with up to three near ones that it knows, in the
    prompt's language. Empty for a model without a vocabulary.
    """
    if (known := vocabulary_of(model)) is None:
        return []
    language, first = styles.language(prompt), dict[str, str]()
    for word in known.unknown(prompt):
        first.setdefault(word.casefold(), word)
    return [(word, known.suggestions(word, language)) for word in first.values()]


def notes_on_training(request: PaintRequest, model: ModelSpec, seed: int) -> tuple[Text, ...]:
    """What the picture of ``seed`` asks for beyond what the model was trained on: words, and a size."""
    name = Text(*(full.split(mark)[0] for full, mark in ((model.en, ","), (model.zh, "，"))))
    found = []
    prompt = _read(request.prompt, seed, model.habits.weighted).text
    if words := unknown_words(prompt, model):
        en = ", ".join(word + (f" (it knows: {', '.join(near)})" if near else "") for word, near in words)
        zh = "、".join(word + (f"（认识：{'、'.join(near)}）" if near else "") for word, near in words)
        found.append(Text(f"{name.en} does not know: {en}.", f"{name.zh}不认识：{zh}。"))
    width, height = request.width, request.height
    if model.trained and not model.trained.covers(width, height):
        near = "{}×{}".format(*model.trained.nearest(width, height))
        found.append(Text(
            f"{name.en} was not trained at {width}×{height}, and things may repeat or blur; the nearest size is {near}.",
            f"{name.zh}没有学过 {width}×{height}，景物可能重复或模糊；最接近的尺寸是 {near}。",
        ))  # fmt: skip
    return tuple(found)


def negative_of(request: PaintRequest, model: ModelSpec) -> str:
    """The user's negative prompt, then the style's if the model was trained on negative prompts."""
    _, from_style = styles.styled(request.prompt, request.style)
    parts = [request.negative_prompt, from_style if model.negatives else ""]
    return ", ".join(part for part in parts if part)


def warnings_for(
    request: PaintRequest, model: ModelSpec, tokenizer: Any = None, counted: str | None = None
) -> list[tuple[str, str]]:
    """What the model will ignore or do badly. With its tokenizer, the length of the prompt, or of ``counted`` in its place, is
    checked as well.
    """
    prompt = words_of(request, model, request.seed_of(0))[0].text
    found: list[tuple[str, str]] = [*model.habits.notes, *_notes_on_pictures(request, model)]
    if request.init_image is not None:
        found += pixels.notes(request.init_image)
    if (words := model.habits.trigger) and words.lower() not in prompt.lower():
        found.append((
            f"{model.en} was trained with the words “{excerpt(words)}”, which the prompt does not hold.",
            f"{model.zh} 训练时使用触发词“{excerpt(words)}”，提示词里没有。",
        ))  # fmt: skip
    if request.negative_prompt and not model.habits.takes_negatives:
        found.append((f"{model.en} ignores the negative prompt.", f"{model.zh} 会忽略负面提示词。"))
    if model.languages and styles.language(prompt) == "zh" and "zh" not in model.languages:
        found.append((
            f"{model.en} reads only English; a Chinese prompt will be mostly ignored. Translate it, or use firefly "
            "or z-image-turbo.",
            f"{model.zh} 的文本编码器只懂英文，中文提示词大多会被忽略。请译成英文，或改用 firefly、z-image-turbo。",
        ))  # fmt: skip
    if not model.guided and request.guidance != model.guidance:
        found.append((
            f"{model.en} was distilled to paint at guidance {model.guidance:g}; {request.guidance:g} may be ignored "
            "or harm the picture.",
            f"{model.zh} 是蒸馏模型，应使用引导强度 {model.guidance:g}；{request.guidance:g} 可能无效或损害画面。",
        ))  # fmt: skip
    if request.negative_prompt and not model.guided and request.guidance <= 1:
        found.append((
            f"Without guidance {model.en} ignores the negative prompt.",
            f"没有引导时，{model.zh} 会忽略负面提示词。",
        ))  # fmt: skip
    if (
        tokenizer is not None
        and model.max_tokens
        and (used := len(tokenizer(counted or prompt).input_ids)) > model.max_tokens
    ):
        found.append((
            f"The prompt is {used} tokens long and {model.en} reads the first {model.max_tokens}.",
            f"提示词共 {used} 个词元，{model.zh} 只读前 {model.max_tokens} 个。",
        ))  # fmt: skip
    return found
