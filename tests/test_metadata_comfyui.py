"""ComfyUI's graphs and workflows: which nodes give a value, and which values are left out and said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attacks.pictures import saved, with_text
from PIL import Image

from starrynight.metadata import Recipe, read_recipe

Graph = dict[str, dict[str, Any]]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def graph(positive: Any = "sea", model: Any = None, **nodes: dict[str, Any]) -> Graph:
    """ComfyUI's default graph; ``positive`` is the text, or a link to the node that gives it."""
    return {
        "3": node("KSampler", seed=7, steps=9, cfg=2.0, sampler_name="euler", scheduler="simple", denoise=1.0,
                  model=model or ["4", 0], positive=["6", 0], negative=["7", 0], latent_image=["5", 0]),
        "4": node("CheckpointLoaderSimple", ckpt_name="base.safetensors"),
        "5": node("EmptyLatentImage", width=64, height=32, batch_size=1),
        "6": node("CLIPTextEncode", text=positive, clip=["4", 1]),
        "7": node("CLIPTextEncode", text="fog", clip=["4", 1]),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", images=["8", 0], filename_prefix="ComfyUI"),
        **nodes,
    }  # fmt: skip


def read(content: object, field: str = "prompt") -> Recipe:
    return read_recipe(with_text(**{field: json.dumps(content)}))


def said(recipe: Recipe) -> str:
    return "; ".join(line.en for line in recipe.left)


LINK = ["20", 0]


@pytest.mark.parametrize(
    ("nodes", "prompt"),
    [
        ({"20": node("PrimitiveStringMultiline", value="sea")}, "sea"),
        ({"20": node("String Literal", string="sea")}, "sea"),
        ({"20": node("Reroute", value=["21", 0]), "21": node("PrimitiveString", value="sea")}, "sea"),
        ({"20": node("ShowText|pysssss", text=["21", 0]), "21": node("Text Multiline", text="sea")}, "sea"),
        ({"20": node("StringConcatenate", string_a="sea", string_b="sky", delimiter=" and ")}, "sea and sky"),
        ({"20": node("StringConcatenate", string_a=["21", 0], string_b="sky", delimiter=", "), "21": node("PrimitiveString", value="sea")}, "sea, sky"),
        ({"20": node("Text Concatenate", delimiter=", ", clean_whitespace="true", text_a="sea ", text_b=" sky", text_c="")}, "sea, sky"),
        ({"20": node("JoinStringMulti", inputcount=2, string_2="sky", string_1="sea", delimiter=" ")}, "sea sky"),
        ({"20": node("CR Text Concatenate", text1="sea", text2="sky", separator=". ")}, "sea. sky"),
        ({"20": node("StringReplace", string="a CAT", find="CAT", replace="dog")}, "a dog"),
        ({"20": node("ImpactWildcardProcessor", wildcard_text="{sea|sky}", populated_text="sky", mode="populate")}, "sky"),
        ({"20": node("CR Text Input Switch", Input=2, text1="sea", text2="sky")}, "sky"),
        ({"20": node("ComfySwitchNode", switch=True, on_false="sea", on_true="sky")}, "sky"),
        ({"20": node("ImpactSwitch", select=["22", 0], input1=["21", 0], input2="no"), "21": node("PrimitiveString", value="sea"), "22": node("PrimitiveInt", value=1)}, "sea"),
        ({"20": node("Any Switch (rgthree)", any_01=["99", 0], any_02=["21", 0]), "21": node("PrimitiveString", value="sky")}, "sky"),
        ({"20": node("SDXLPromptStyler", text_positive="sea", text_negative="no", style="base", log_prompt=False)}, "sea"),
    ],
)  # fmt: skip
def test_a_text_through_nodes(nodes: Graph, prompt: str) -> None:
    recipe = read(graph(LINK, **nodes))
    assert recipe.prompt == prompt
    assert said(recipe) == "scheduler: simple"


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ({"20": node("OllamaGenerate", prompt="describe a sea")}, "computes a text"),
        ({"20": node("CaptionImage", image=["5", 0])}, "computes a text"),
        ({}, "is not in the graph"),
        ({"20": node("Reroute", value=LINK)}, "links to itself"),
        ({"20": node("StringConcatenate", string_a=["99", 0], string_b="sky", delimiter=", ")}, "joins texts that are not all known"),
        ({"20": node("MysteryNode", text="sea", prompt="sky")}, "computes a text"),
    ],
)  # fmt: skip
def test_a_text_that_a_node_computes_is_left_out_and_said(nodes: Graph, reason: str) -> None:
    recipe = read(graph(LINK, **nodes))
    assert (recipe.prompt, recipe.negative_prompt, recipe.seed) == ("", "fog", 7)
    assert reason in said(recipe)


def test_a_style_whose_words_are_elsewhere_is_said() -> None:
    styler = node("SDXLPromptStyler", text_positive="sea", text_negative="fog", style="sai-anime")
    recipe = read(graph(LINK, **{"20": styler}))
    assert recipe.prompt == "sea"
    assert "sai-anime" in said(recipe)


@pytest.mark.parametrize(
    ("value", "nodes", "seed"),
    [
        (LINK, {"20": node("PrimitiveInt", value=5)}, 5),
        (LINK, {"20": node("Seed (rgthree)", seed=5)}, 5),
        (LINK, {"20": node("Reroute", any=["21", 0]), "21": node("PrimitiveInt", value=5)}, 5),
        (LINK, {"20": node("Random Number", minimum=0, maximum=9, seed=3)}, None),
        (LINK, {"20": node("MathExpression|pysssss", expression="a+1", a=3, value=3)}, None),
        (LINK, {}, None),
        (LINK, {"20": node("Reroute", any=LINK)}, None),
        ("NaN", {}, None),
        (float("nan"), {}, None),
    ],
)
def test_a_number_through_nodes(value: Any, nodes: Graph, seed: int | None) -> None:
    content = graph(**nodes)
    content["3"]["inputs"]["seed"] = value
    recipe = read(content)
    assert (recipe.seed, recipe.prompt) == (seed, "sea")


LOADER = {"model": ["4", 0], "clip": ["4", 1]}


@pytest.mark.parametrize(
    ("nodes", "loras"),
    [
        ({"20": node("LoraLoader", lora_name="ink", strength_model=0.7, strength_clip=1, **LOADER)}, (("ink", 0.7),)),
        ({"20": node("LoraLoaderModelOnly", lora_name="gold", strength_model=-1, model=["21", 0]),
          "21": node("LoraLoaderModelOnly", lora_name="ink", strength_model=["22", 0], model=["4", 0]), "22": node("PrimitiveFloat", value=0.5)}, (("ink", 0.5), ("gold", -1.0))),
        ({"20": node("Power Lora Loader (rgthree)", lora_1={"on": True, "lora": "ink", "strength": 0.8}, lora_2={"on": False, "lora": "gold", "strength": 1}, **LOADER)}, (("ink", 0.8),)),
        ({"20": node("CR Apply LoRA Stack", lora_stack=["21", 0], **LOADER),
          "21": node("CR LoRA Stack", switch_1="On", lora_name_1="ink", model_weight_1=0.6, clip_weight_1=1, switch_2="Off", lora_name_2="gold", model_weight_2=1)}, (("ink", 0.6),)),
        ({"20": node("CR Apply LoRA Stack", lora_stack=["21", 0], **LOADER),
          "21": node("LoRA Stacker", input_mode="simple", lora_count=1, lora_name_1="ink", lora_wt_1=0.6, lora_name_2="gold", lora_wt_2=1)}, (("ink", 0.6),)),
        ({"20": node("Lora Loader Stack (rgthree)", lora_01="ink", strength_01=0.4, lora_02="None", strength_02=1, **LOADER)}, (("ink", 0.4),)),
        ({"20": node("Lora Loader (LoraManager)", loras={"__value__": [{"name": "ink", "strength": 0.3, "active": True}, {"name": "gold", "strength": 1, "active": False}]}, **LOADER)}, (("ink", 0.3),)),
        ({"20": node("LoraLoaderModelOnly", lora_name="ink", strength_model=["21", 0], model=["4", 0]), "21": node("MathExpression", a=1)}, ()),
    ],
)  # fmt: skip
def test_loras_of_every_loader(nodes: Graph, loras: tuple[tuple[str, float], ...]) -> None:
    recipe = read(graph(model=LINK, **nodes))
    assert (recipe.loras, recipe.model) == (loras, "base.safetensors")
    assert ("weight of the LoRA ink is computed" in said(recipe)) == (not loras)


def test_flux_guidance_counts_where_the_scale_is_1() -> None:
    content = graph(**{"26": node("FluxGuidance", guidance=3.5, conditioning=["6", 0])})
    content["3"]["inputs"] |= {"positive": ["26", 0], "cfg": 1}
    assert read(content).guidance == 3.5


def test_the_sampler_of_the_saved_picture_is_taken_and_two_saved_pictures_are_said() -> None:
    other = {
        "33": node("KSampler", seed=1, steps=2, cfg=1, sampler_name="heun", scheduler="simple", denoise=1, model=["4", 0],
                   positive=["7", 0], negative=["6", 0], latent_image=["5", 0]),
        "38": node("VAEDecode", samples=["33", 0], vae=["4", 2]),
        "39": node("PreviewImage", images=["38", 0]),
    }  # fmt: skip
    content = {**other, **graph()}
    assert (read(content).seed, read(content).prompt) == (7, "sea")
    content["39"] = node("SaveImage", images=["38", 0])
    assert "several samplers (33, 3)" in said(read(content))


CIVITAI = {"prompt": "a big sea", "negativePrompt": "rain", "cfgScale": 4, "sampler": "Euler a", "steps": 25, "seed": 11, "width": 832, "height": 1216,
           "resources": [{"modelVersionId": 34, "strength": 0.6}, {"modelVersionId": 9, "strength": 1}]}  # fmt: skip
AIRS = {"airs": ["urn:air:sdxl:checkpoint:civitai:8@9", "urn:air:sdxl:lora:civitai:12@34"]}


@pytest.mark.parametrize("field", ["UserComment", "prompt", "apart"])
def test_civitai_fills_what_the_graph_does_not_say(field: str) -> None:
    upscale = {"1": node("LoadImage", image="x.png"), "2": node("SaveImage", images=["1", 0])}
    content = upscale | {"extra": AIRS, "extraMetadata": json.dumps(CIVITAI)}
    if field == "UserComment":
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + json.dumps(content).encode("utf-16-le")
        recipe = read_recipe(saved("JPEG", exif=exif))
    elif field == "prompt":
        recipe = read(content)
    else:
        recipe = read_recipe(
            with_text(prompt=json.dumps(upscale | {"extra": AIRS}), extraMetadata=json.dumps(CIVITAI))
        )
    assert (recipe.tool, recipe.prompt, recipe.negative_prompt, recipe.seed) == (
        "Civitai",
        "a big sea",
        "rain",
        11,
    )
    assert (recipe.guidance, recipe.steps, recipe.width, recipe.height) == (4.0, 25, 832, 1216)
    assert recipe.loras == (("urn:air:sdxl:lora:civitai:12@34", 0.6),)
    assert recipe.model == "urn:air:sdxl:checkpoint:civitai:8@9"


def workflow(**changes: Any) -> dict[str, Any]:
    """The editor's form of a small graph, as ComfyUI saved it before 2025: widgets without names."""

    def item(
        number: int,
        kind: str,
        widgets: list[Any],
        inputs: list[tuple[str, int | None, str]] = (),
        outputs: tuple[str, ...] = (),
        mode: int = 0,
    ) -> dict[str, Any]:  # type: ignore[assignment]
        return {"id": number, "type": kind, "mode": mode, "widgets_values": widgets,
                "inputs": [{"name": name, "link": link, "type": type_} for name, link, type_ in inputs], "outputs": [{"name": one, "type": one} for one in outputs]}  # fmt: skip

    return {
        "nodes": [
            item(3, "KSampler", [7, "randomize", 9, 2.0, "euler", "simple", 1],
                 [("model", 1, "MODEL"), ("positive", 2, "CONDITIONING"), ("negative", 3, "CONDITIONING"), ("latent_image", 4, "LATENT")], ("LATENT",)),
            item(4, "CheckpointLoaderSimple", ["base.safetensors"], [], ("MODEL", "CLIP", "VAE")),
            item(10, "LoraLoader", ["ink", 0.7, 1.0], [("model", 8, "MODEL"), ("clip", 9, "CLIP")], ("MODEL", "CLIP"), changes.get("lora_mode", 0)),
            item(5, "EmptyLatentImage", [64, 32, 1], [], ("LATENT",)),
            item(6, "CLIPTextEncode", ["sea"], [("clip", 5, "CLIP")], ("CONDITIONING",)),
            item(7, "CLIPTextEncode", ["fog"], [("clip", 6, "CLIP")], ("CONDITIONING",), changes.get("negative_mode", 0)),
            item(9, "SaveImage", ["ComfyUI"], [("images", 7, "IMAGE")]),
            item(8, "VAEDecode", [], [("samples", 10, "LATENT"), ("vae", 11, "VAE")], ("IMAGE",)),
            item(12, "Reroute", [], [("", 12, "*")], ("MODEL",)),
        ],
        "links": [[1, 12, 0, 3, 0, "MODEL"], [12, 10, 0, 12, 0, "MODEL"], [2, 6, 0, 3, 1, "CONDITIONING"], [3, 7, 0, 3, 2, "CONDITIONING"], [4, 5, 0, 3, 3, "LATENT"],
                  [5, 10, 1, 6, 0, "CLIP"], [6, 10, 1, 7, 0, "CLIP"], [7, 8, 0, 9, 0, "IMAGE"], [8, 4, 0, 10, 0, "MODEL"], [9, 4, 1, 10, 1, "CLIP"],
                  [10, 3, 0, 8, 0, "LATENT"], [11, 4, 2, 8, 1, "VAE"]],
        "version": 0.4,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "loras", "negative"),
    [
        ({}, (("ink", 0.7),), "fog"),
        ({"lora_mode": 4}, (), "fog"),
        ({"negative_mode": 2}, (("ink", 0.7),), ""),
    ],
)
def test_a_workflow_without_a_graph(changes: dict[str, int], loras: tuple[Any, ...], negative: str) -> None:
    recipe = read(workflow(**changes), "workflow")
    assert (recipe.tool, recipe.prompt, recipe.negative_prompt, recipe.loras) == (
        "ComfyUI",
        "sea",
        negative,
        loras,
    )
    assert (recipe.seed, recipe.steps, recipe.guidance, recipe.sampler) == (7, 9, 2.0, "euler")
    assert (recipe.width, recipe.height, recipe.model) == (64, 32, "base.safetensors")


def test_a_workflow_with_a_subgraph_and_named_widgets() -> None:
    """The editor of 2025: a text on the outer node goes into the subgraph, whose widgets are named."""

    def widget(name: str) -> dict[str, Any]:
        return {"name": name, "type": "*", "widget": {"name": name}, "link": None}

    inner = {
        "id": "aaaa", "inputs": [{"name": "text", "linkIds": [1]}], "outputs": [{"name": "LATENT", "linkIds": [4]}],
        "nodes": [
            {"id": 6, "type": "CLIPTextEncode", "widgets_values": ["inner"], "inputs": [{"name": "text", "link": 1, "widget": {"name": "text"}}], "outputs": [{"type": "CONDITIONING"}]},
            {"id": 3, "type": "KSampler", "widgets_values": [7, "fixed", 9, 2.0, "euler", "simple", 1],
             "inputs": [{"name": "positive", "link": 2}, {"name": "latent_image", "link": 3}, *map(widget, ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise"))]},
            {"id": 5, "type": "EmptySD3LatentImage", "widgets_values": [64, 32, 1], "inputs": list(map(widget, ("width", "height", "batch_size")))},
        ],
        "links": [{"id": 1, "origin_id": -10, "origin_slot": 0, "target_id": 6, "target_slot": 0}, {"id": 2, "origin_id": 6, "origin_slot": 0, "target_id": 3, "target_slot": 0},
                  {"id": 3, "origin_id": 5, "origin_slot": 0, "target_id": 3, "target_slot": 1}, {"id": 4, "origin_id": 3, "origin_slot": 0, "target_id": -20, "target_slot": 0}],
    }  # fmt: skip
    outer = {
        "nodes": [
            {"id": 57, "type": "aaaa", "widgets_values": ["sea"], "inputs": [widget("text")], "outputs": [{"type": "LATENT"}]},
            {"id": 9, "type": "SaveImage", "widgets_values": ["x"], "inputs": [{"name": "images", "link": 1}]},
        ],
        "links": [[1, 57, 0, 9, 0, "LATENT"]], "definitions": {"subgraphs": [inner]},
    }  # fmt: skip
    recipe = read(outer, "workflow")
    assert (recipe.prompt, recipe.seed, recipe.steps, recipe.width, recipe.height) == ("sea", 7, 9, 64, 32)


@pytest.mark.parametrize(
    "broken",
    [
        {"nodes": []},
        {"nodes": [1, None], "links": [[1]]},
        {"nodes": [{"id": 3, "type": "KSampler", "widgets_values": None}], "links": 5},
    ],
)
def test_a_malformed_workflow_is_no_recipe(broken: dict[str, Any]) -> None:
    from starrynight.errors import NoRecipe

    with pytest.raises(NoRecipe):
        read(broken, "workflow")


def test_texts_that_double_at_every_node_end() -> None:
    """Forty joints, each of the one before with itself, would be 2⁴⁰ texts."""
    joints = {
        str(n): node("StringConcatenate", string_a=[str(n + 1), 0], string_b=[str(n + 1), 0], delimiter="")
        for n in range(20, 60)
    }
    recipe = read(graph(LINK, **joints, **{"60": node("PrimitiveString", value="sea")}))
    assert (recipe.prompt, recipe.seed) == ("", 7)
    assert "joins texts" in said(recipe)


def changed(content: Any) -> Any:
    """``content`` with each of its values in turn replaced by values of other types."""
    items = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    for key, value in items:
        for other in (None, 5, True, "x", [], [[1], {}], {"a": [1]}):
            copy = dict(content) if isinstance(content, dict) else list(content)
            copy[key] = other
            yield copy
        for inner in changed(value):
            copy = dict(content) if isinstance(content, dict) else list(content)
            copy[key] = inner
            yield copy


def test_no_type_of_any_value_raises() -> None:
    from test_metadata_tools import (
        DRAW_THINGS,
        EASY,
        INVOKE_2,
        INVOKE_FLUX,
        NOVELAI,
        NOVELAI_FIELDS,
        RUINED,
        TENSOR_ART,
    )

    from starrynight.metadata import comfyui, objects
    from starrynight.text import clean

    stack = {
        "20": node("CR LoRA Stack", switch_1="On", lora_name_1="ink", model_weight_1=0.6),
        "21": node("ImpactSwitch", select=1, input1="sea"),
    }
    graphs = [
        graph(["21", 0], LINK, **stack),
        graph() | {"extra": AIRS, "extraMetadata": CIVITAI},
        workflow(lora_mode=4),
    ]
    contents = [RUINED, EASY, DRAW_THINGS, TENSOR_ART, INVOKE_FLUX, NOVELAI_FIELDS, {"sui_image_params": {"prompt": "a", "loras": ["b"], "loraweights": ["1"]}},
                {"metadata_scheme": "fooocus", "prompt": "a", "loras": [["b", 1, "c"]], "lora_combined_1": "b : 1", "resolution": "(1, 2)"}]  # fmt: skip
    contents += [NOVELAI_FIELDS | {"Comment": json.dumps(comment)} for comment in changed(NOVELAI)]
    cases = [(comfyui.read, one) for content in graphs for one in changed(content)]
    cases += [(objects.read, one) for content in contents for one in changed(content)]
    cases += [(objects.read_invoke_2, one) for one in changed(INVOKE_2)]
    for read_one, content in cases:
        recipe = read_one(content)
        assert recipe is None or recipe.prompt == clean(recipe.prompt)
