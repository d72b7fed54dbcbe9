"""ComfyUI's context windows with a clean first frame in each."""

import comfy.context_windows
import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_context_windows import ContextWindowsManualNode

LENGTH, OVERLAP, FRAMES = 4, 2, 11
SCHEDULES = ["standard_static", "standard_uniform", "looped_uniform", "batched"]


def windowed(model, schedule="standard_static", stride=1, fuse="pyramid", length=LENGTH, **changes):
    settings = {"closed_loop": schedule == "looped_uniform", "dim": 0, "freenoise": False, **changes}
    return ContextWindowsManualNode.execute(
        model, length, OVERLAP, schedule, stride, fuse_method=fuse, **settings
    )[0]  # fmt: skip


def by_hand(oracle, handler, prompt_at, prompts):
    """Every window on its own: [first frame; own frames], fused by ComfyUI's weights."""

    def one_prompt(x, sigma, text, options):
        handler.set_step(sigma[None], {"transformer_options": options})
        windows = handler.get_context_windows(oracle.model, x, {"transformer_options": options})
        total, weight_sum = torch.zeros_like(x), torch.zeros(x.shape[0], 1, 1, 1)
        for window in windows:
            frames = [0] + [i for i in window.index_list if i != 0]
            out = oracle.denoised(x[frames], sigma, prompt_at(text, frames))
            weights = comfy.context_windows.get_context_weights(
                len(window.index_list),
                x.shape[0],
                window.index_list,
                handler,
                sigma=sigma,
                context_overlap=OVERLAP,
            )
            for position, frame in enumerate(window.index_list):
                total[frame] += weights[position] * out[frames.index(frame)]
                weight_sum[frame] += weights[position]
        return total / weight_sum

    def combine(x, sigma):
        steps = comfy.samplers.calculate_sigmas(
            oracle.patcher.get_model_object("model_sampling"), "normal", 2
        )
        options = {"sample_sigmas": steps}
        shown = oracle.shown(x, sigma)
        cond, uncond = (one_prompt(shown, sigma, p, options) for p in (prompts.positive, prompts.negative))
        return torch.cat([oracle.z0, (uncond + 7.5 * (cond - uncond))[1:]])

    return combine


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_equals_windows_by_hand(
    animated, sample, make_oracle, prompts, assert_same, schedule, stride
):
    m = windowed(animated, schedule, stride)
    ours = sample(m, frames=FRAMES)
    combine = by_hand(
        make_oracle(animated), m.model_options["context_handler"], lambda text, _: text, prompts
    )
    assert_same(ours, make_oracle(animated).euler(combine, frames=FRAMES))


@pytest.mark.parametrize("fuse", ["flat", "relative", "overlap-linear"])
@pytest.mark.parametrize("causal", [True, False])
def test_every_window_starts_with_the_clean_picture(
    animated, sample, unet_inputs, z0, reference, fuse, causal
):
    out = sample(windowed(animated, fuse=fuse, causal_window_fix=causal), frames=FRAMES)
    assert torch.equal(out[:1], reference)
    assert len(unet_inputs) > 4
    for latents, _ in unet_inputs:
        for chunk in latents.chunk(2):
            torch.testing.assert_close(chunk[:1], z0, rtol=0, atol=1e-6)


def test_the_causal_frame_and_retained_frames_make_no_difference(animated, sample):
    videos = [
        sample(windowed(animated, causal_window_fix=causal, latent_retain_index_list=retain), frames=FRAMES)
        for causal, retain in ((True, ""), (False, ""), (False, "0"))
    ]
    assert torch.equal(videos[0], videos[1])
    assert torch.equal(videos[0], videos[2])


def test_prompts_per_frame_follow_their_frames(animated, sample, prompts, unet_inputs):
    per_frame = prompts.make(8, batch=FRAMES)
    sample(windowed(animated, "looped_uniform"), frames=FRAMES, cfg=1.0, positive=per_frame, steps=1)
    texts = [text for _, text in unet_inputs]
    rows = [
        [next(i for i, t in enumerate(per_frame[0][0]) if torch.equal(t, row)) for row in text]
        for text in texts
    ]
    assert all(row[0] == 0 and 0 not in row[1:] for row in rows)
    assert {i for row in rows for i in row} == set(range(FRAMES))


def test_prompts_of_areas_keep_their_side(animated, sample, prompts, unet_inputs):
    """ComfyUI copies a prompt's area to the other side, together with its identity."""
    positive, negative = prompts.make(8, batch=FRAMES), prompts.make(9, batch=FRAMES)
    positive[0][1].update(area=(4, 4, 0, 0), strength=1.0)
    sample(windowed(animated), frames=FRAMES, positive=positive, negative=negative, steps=1)
    sides = [set(), set()]
    for latents, text in unet_inputs:
        for side, given in enumerate((positive, negative)):
            rows = [any(torch.equal(row, t) for t in given[0][0]) for row in text]
            sides[side] |= {latents.shape[-1]} if any(rows) else set()
    assert sides == [{4}, {4, 8}]


@pytest.mark.parametrize("own_prompt", [True, False])
def test_a_guidance_node_gets_an_answer_to_its_own_question(animated, sample, unet_inputs, own_prompt):
    def ask_again(args):
        again, prompt = args["input"] * 0.5, args["cond"]
        if own_prompt:
            prompt = [{key: value for key, value in cond.items() if key != "flash_cond"} for cond in prompt]
        comfy.samplers.calc_cond_batch(args["model"], [prompt], again, args["sigma"], args["model_options"])
        return args["denoised"]

    m = windowed(animated)
    m.set_model_sampler_post_cfg_function(ask_again)
    sample(m, frames=FRAMES, steps=1, cfg=1.0)
    first, second = (
        calls for calls in (unet_inputs[: len(unet_inputs) // 2], unet_inputs[len(unet_inputs) // 2 :])
    )
    for (before, _), (after, _) in zip(first, second, strict=True):
        torch.testing.assert_close(after[1:], before[1:] * 0.5, rtol=1e-4, atol=1e-4)


def test_windows_before_equal_windows_after(flash, model, motion, reference, sample):
    before = flash.backend.add_first_frame(flash.backend.add_action(windowed(model), motion, None), reference)
    after = windowed(flash.backend.add_action(flash.backend.add_first_frame(model, reference), motion, None))
    assert torch.equal(sample(before, frames=FRAMES), sample(after, frames=FRAMES))


def test_windows_longer_than_the_video_change_nothing(animated, sample):
    assert torch.equal(sample(windowed(animated, length=16)), sample(animated))


def test_plain_motion_runs_in_windows(flash, model, motion, sample, unet_inputs):
    sample(windowed(flash.backend.add_motion(model, motion), causal_window_fix=False), frames=FRAMES)
    assert {latents.shape[0] for latents, _ in unet_inputs} == {2 * LENGTH}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"length": 32}, "Context windows of 32 frames, .* set `context_length` to 31 or less"),
        ({"dim": 2}, "do not run along the frames"),
    ],
)
def test_windows_that_cannot_be_right_are_refused(animated, sample, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        sample(windowed(animated, **settings), frames=40)
