"""What First Frame can tell from its MODEL and from the graph around it, before anything is sampled."""

from collections.abc import Iterator, Mapping
from typing import Any

from comfy.model_patcher import ModelPatcher

from .options import MOTION

Prompt = Mapping[str, Mapping[str, Any]]
"""A graph in API form."""
Link = list[Any]
"""Id of a node, and index of its output, or None for all of them."""


def first_frame_notes(model: ModelPatcher, num_frames: int, hidden) -> list[str]:
    """Sentences about what will go wrong after a First Frame that gives this MODEL, if something will.

    They speak of the run that they were made in: ComfyUI does not run the node again when a link behind it is
    mended, and its note may stay. `hidden` holds the node's own id and the prompt; without it (no server)
    there is nothing to tell.
    """
    prompt, node_id = (hidden.prompt, hidden.unique_id) if hidden else (None, None)
    if not prompt or node_id not in prompt:
        return []
    forgotten = (_forgotten(prompt, name, [node_id, 0]) for name in _samplers_of(prompt, [node_id, 1]))
    return [*filter(None, forgotten), *_too_long(model, num_frames, prompt, [node_id, 0])]


def _too_long(model: ModelPatcher, num_frames: int, prompt: Prompt, output: Link) -> Iterator[str]:
    plan = model.model_options["transformer_options"].get(MOTION)
    windows = "context_handler" in model.model_options or any(
        "context" in node["class_type"].lower() and _reaches(prompt, [node_id, None], output)
        for node_id, node in prompt.items()
    )
    if plan is not None and num_frames > plan.config.max_frames and not windows:
        yield f"{num_frames} `frames` are more than the {plan.config.max_frames} that this motion knows."


def _forgotten(prompt: Prompt, sampler: str, model: Link) -> str:
    """What is wrong with the sampler's MODEL; nothing if First Frame's reaches it."""
    links = [link for name, link in _links(prompt, sampler) if name in ("model", "guider")]
    if any(_reaches(prompt, link, model) for link in links):
        return ""
    name = _name(prompt, sampler)
    if any(_reaches(prompt, link, model, through_merges=True) for link in links):
        return f"Before {name}, a merge kept the picture of `model1`, which is not this one."
    return f"{name} took this LATENT, but not this MODEL: it needs both."


def _samplers_of(prompt: Prompt, latent: Link) -> Iterator[str]:
    """The first nodes with a MODEL that these latents come to, straight or through other nodes."""
    seen, waiting = {latent[0]}, [latent]
    while waiting:
        output = waiting.pop()
        for node_id in prompt:
            links = dict(_links(prompt, node_id))
            if node_id in seen or not any(_same(link, output) for link in links.values()):
                continue
            seen.add(node_id)
            if "model" in links or "guider" in links:
                yield node_id
            else:
                waiting.append([node_id, None])


def _reaches(prompt: Prompt, link: Link, output: Link, *, through_merges: bool = False) -> bool:
    """Whether what comes out of `link` was made of that output."""
    seen, waiting = set(), [link]
    while waiting:
        link = waiting.pop()
        if _same(link, output):
            return True
        if link[0] not in seen:
            seen.add(link[0])
            links = dict(_links(prompt, link[0]))
            if "model1" in links and not through_merges:
                links.pop("model2", None)
            waiting += links.values()
    return False


def _same(link: Link, output: Link) -> bool:
    return link[0] == output[0] and (output[1] is None or link[1] == output[1])


def _links(prompt: Prompt, node_id: str) -> Iterator[tuple[str, Link]]:
    for name, value in prompt[node_id]["inputs"].items():
        if isinstance(value, list) and len(value) == 2 and value[0] in prompt:
            yield name, value


def _name(prompt: Prompt, node_id: str) -> str:
    node = prompt[node_id]
    return node.get("_meta", {}).get("title") or node["class_type"]
