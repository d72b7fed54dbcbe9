"""A forgotten MODEL link never gives a wrong video without a word."""

from types import SimpleNamespace

import pytest
import torch
from comfy_extras.nodes_custom_sampler import (
    BasicGuider,
    BasicScheduler,
    KSamplerSelect,
    RandomNoise,
    SamplerCustomAdvanced,
)
from comfy_extras.nodes_model_merging import ModelMergeSimple
from nodes import KSampler

from flash_pack import nodes as pack_nodes

FRAMES = 5


@pytest.fixture
def nodes():
    return {node.GET_SCHEMA().node_id.removeprefix("FLASH_"): node for node in pack_nodes.NODES}


@pytest.fixture
def animated(flash, model, motion):
    """Apply Action's MODEL."""
    return flash.backend.add_action(model, motion, None)


@pytest.fixture
def first_frame(nodes, animated, reference):
    """First Frame's MODEL and LATENT."""
    return nodes["FirstFrame"].execute(animated, {"samples": reference}, FRAMES).args


@pytest.fixture
def ksampler(prompts):
    def run(model, latent):
        return KSampler().sample(
            model, 1, 2, 7.5, "euler", "normal", prompts.positive, prompts.negative, latent
        )[0]

    return run


def test_both_links_give_the_video(ksampler, nodes, first_frame, reference):
    video = ksampler(*first_frame)
    (styled,) = nodes["AdaINLatents"].execute(video, 1.0).args
    assert torch.equal(styled["samples"][:1], reference)


def test_apply_actions_model_beside_first_frames_latent_is_refused(ksampler, animated, first_frame):
    with pytest.raises(ValueError, match="connect First Frame's MODEL to the sampler"):
        ksampler(animated, first_frame[1])


def test_so_it_is_in_a_custom_sampler(animated, first_frame, prompts):
    with pytest.raises(ValueError, match="connect First Frame's MODEL to the sampler"):
        SamplerCustomAdvanced.execute(
            RandomNoise.execute(1)[0],
            BasicGuider.execute(animated, prompts.positive)[0],
            KSamplerSelect.execute("euler")[0],
            BasicScheduler.execute(animated, "normal", 2, 1.0)[0],
            first_frame[1],
        )


def test_and_with_plain_animatediff(flash, ksampler, model, motion, first_frame):
    with pytest.raises(ValueError, match="connect First Frame's MODEL to the sampler"):
        ksampler(flash.backend.add_motion(model, motion), first_frame[1])


def test_a_noise_mask_counts_where_it_keeps_frame_0(ksampler, animated, first_frame):
    mask = torch.ones(FRAMES, 8, 8)
    with pytest.raises(ValueError, match="connect First Frame's MODEL to the sampler"):
        ksampler(animated, first_frame[1] | {"noise_mask": mask.clone()})
    mask[0] = 0
    video = ksampler(animated, first_frame[1] | {"noise_mask": mask})
    assert len(video["samples"]) == FRAMES


def test_two_first_frames_are_not_mixed(ksampler, nodes, animated, first_frame, reference):
    _, other = nodes["FirstFrame"].execute(animated, {"samples": reference + 1}, FRAMES).args
    with pytest.raises(ValueError, match="MODEL and LATENT of the same First Frame"):
        ksampler(first_frame[0], other)


def test_a_first_frame_without_motion_is_refused(ksampler, nodes, model, reference):
    with pytest.raises(ValueError, match="put Apply Action between the checkpoint and First Frame"):
        ksampler(*nodes["FirstFrame"].execute(model, {"samples": reference}, FRAMES).args)


@pytest.mark.parametrize("merged", [False, True], ids=["bare", "merged"])
@pytest.mark.parametrize("node", ["AdaINLatents", "DetailDecode"])
def test_the_bare_checkpoints_model_is_told_afterwards(
    ksampler, nodes, model, make_model, first_frame, node, merged
):
    bound, latent = first_frame
    bare = ModelMergeSimple().merge(make_model(seed=7), bound, 0.5)[0] if merged else model
    video = ksampler(bare, latent)
    more = {"strength": 1.0}
    if node == "DetailDecode":
        more |= {"vae": None, "reference": None, "keep_first_frame": False}
    with pytest.raises(ValueError, match="Frame 0 of this video is not your picture"):
        nodes[node].execute(latents=video, **more)


def test_what_was_cut_since_is_not_judged(ksampler, nodes, first_frame):
    from nodes import LatentFromBatch

    later = LatentFromBatch().frombatch(ksampler(*first_frame), 1, 3)[0]
    assert len(nodes["AdaINLatents"].execute(later, 1.0).args[0]["samples"]) == 3


def test_what_a_custom_sampler_calls_denoised_is_no_other_picture(nodes, first_frame, prompts):
    bound, latent = first_frame
    for video in SamplerCustomAdvanced.execute(
        RandomNoise.execute(1)[0],
        BasicGuider.execute(bound, prompts.positive)[0],
        KSamplerSelect.execute("euler")[0],
        BasicScheduler.execute(bound, "normal", 2, 1.0)[0],
        latent,
    ).result:
        nodes["AdaINLatents"].execute(video, 1.0)


GRAPH = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {}},
    "2": {"class_type": "FLASH_ApplyAction", "inputs": {"model": ["1", 0]}},
    "3": {"class_type": "FLASH_FirstFrame", "inputs": {"model": ["2", 0], "frames": FRAMES}},
    "4": {
        "class_type": "KSampler",
        "inputs": {"model": ["3", 0], "latent_image": ["3", 1]},
        "_meta": {"title": "My sampler"},
    },
    "5": {"class_type": "FLASH_AdaINLatents", "inputs": {"latents": ["4", 0]}},
    "6": {"class_type": "KSampler", "inputs": {"model": ["1", 0], "latent_image": ["5", 0]}},
}
"""A second sampler, which may have another MODEL, comes after the first."""


@pytest.fixture
def notes_of(flash, animated, nodes, reference):
    """What First Frame says in GRAPH with some nodes changed."""

    def notes_of(changes, frames=FRAMES, model=animated):
        graph = GRAPH | changes
        hidden = SimpleNamespace(prompt=graph, unique_id="3")
        bound = flash.backend.add_first_frame(model, reference)
        return flash.backend.first_frame_notes(bound, frames, hidden)

    return notes_of


def sampler(model, latent=("3", 1), **inputs):
    inputs |= {"model": list(model)} if model else {}
    inputs["latent_image"] = list(latent)
    return {"class_type": "KSampler", "inputs": inputs, "_meta": {"title": "My sampler"}}


WINDOWS = {"class_type": "ContextWindowsManual", "inputs": {"model": ["3", 0]}}
CUSTOM = {
    "4": {"class_type": "SamplerCustomAdvanced", "inputs": {"guider": ["8", 0], "latent_image": ["7", 0]}},
    "7": {"class_type": "SetLatentNoiseMask", "inputs": {"samples": ["3", 1]}},
    "8": {"class_type": "BasicGuider", "inputs": {"model": ["9", 0], "conditioning": ["10", 0]}},
    "9": {"class_type": "LoraLoaderModelOnly", "inputs": {"model": ["3", 0]}},
    "10": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1]}},
}


@pytest.mark.parametrize("changes", [{}, CUSTOM], ids=["KSampler", "SamplerCustomAdvanced"])
def test_first_frame_is_silent_where_all_is_well(notes_of, changes):
    assert notes_of(changes) == []


@pytest.mark.parametrize("source", ["1", "2"])
def test_first_frame_names_the_sampler_that_lacks_its_model(notes_of, source):
    (note,) = notes_of({"4": sampler((source, 0))})
    assert note == "My sampler took this LATENT, but not this MODEL: it needs both."


def test_first_frame_sees_through_nodes_on_the_latents_and_guiders(notes_of):
    wrong = CUSTOM | {"9": {"class_type": "LoraLoaderModelOnly", "inputs": {"model": ["2", 0]}}}
    (note,) = notes_of(wrong)
    assert note.startswith("SamplerCustomAdvanced took this LATENT")


def test_first_frame_sees_a_merge_that_drops_it(notes_of):
    merge = {"class_type": "ModelMergeSimple", "inputs": {"model1": ["1", 0], "model2": ["3", 0]}}
    (note,) = notes_of({"4": sampler(("7", 0)), "7": merge})
    assert note == "Before My sampler, a merge kept the picture of `model1`, which is not this one."
    merge["inputs"] = {"model1": ["3", 0], "model2": ["1", 0]}
    assert notes_of({"4": sampler(("7", 0)), "7": merge}) == []


def test_a_video_that_is_too_long_names_the_node_and_the_widget(
    nodes, ksampler, animated, reference, prompts
):
    bound, latent = nodes["FirstFrame"].execute(animated, {"samples": reference}, 40).args
    with pytest.raises(ValueError, match=r"40 frames, .*: set First Frame's `frames` to 32 or less"):
        ksampler(bound, latent)
    given = (animated, prompts.positive, prompts.negative, {"samples": reference})
    with pytest.raises(ValueError, match=r"40 frames, .*: set FLASH Video Sampler's `frames` to 32 or less"):
        nodes["Sampler"].execute(*given, 40, 1, 2, 7.5, 1.0)


def test_first_frame_says_at_once_that_the_video_is_too_long(notes_of):
    (note,) = notes_of({}, frames=33)
    assert note == "33 `frames` are more than the 32 that this motion knows."


@pytest.mark.parametrize("frames", [32, 33])
def test_first_frame_is_silent_where_context_windows_follow(notes_of, frames):
    assert notes_of({"7": WINDOWS, "4": sampler(("7", 0))}, frames=frames) == []


def test_notes_stand_on_the_node_and_in_the_log(monkeypatch, caplog, nodes, animated, reference):
    import server

    sent = []
    fake = SimpleNamespace(send_progress_text=lambda text, node_id: sent.append((text, node_id)))
    monkeypatch.setattr(server.PromptServer, "instance", fake, raising=False)
    hidden = SimpleNamespace(prompt=GRAPH | {"4": sampler(("2", 0))}, unique_id="3")
    monkeypatch.setattr(nodes["FirstFrame"], "hidden", hidden)
    nodes["FirstFrame"].execute(animated, {"samples": reference}, FRAMES)
    ((text, node_id),) = sent
    assert node_id == "3"
    assert text.startswith("My sampler took this LATENT")
    assert text in caplog.text
    hidden.prompt = GRAPH
    nodes["FirstFrame"].execute(animated, {"samples": reference}, FRAMES)
    nodes["FirstFrame"].execute(animated, {"samples": reference}, FRAMES)
    assert sent[1:] == [(" ", "3")], "a note of an earlier run is taken back, once"
