"""Learning action tokens on diffusers' CogVideoX, against the method: motion queries, dense sequence."""

import math
import weakref
from pathlib import Path

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from flash_pack.flash_modules.backends.diffusers.cogvideox import add_transfer
from flash_pack.flash_modules.backends.diffusers.cogvideox.train import (
    LearningTokens,
    encode_moments,
    encoding_bytes,
)
from flash_pack.flash_modules.flexiact.noise_schedule import alphas_cumprod
from flash_pack.flash_modules.flexiact.performance import Performance
from flash_pack.flash_modules.flexiact.reweighting import RELEASED
from flash_pack.flash_modules.flexiact.training import saving as saving_module
from flash_pack.flash_modules.flexiact.training.encoded import EncodedView
from flash_pack.flash_modules.flexiact.training.lesson import Lesson
from flash_pack.flash_modules.flexiact.training.needs import nearest_that_fits, step_needs
from flash_pack.flash_modules.flexiact.training.saving import SAVINGS, Saving
from flash_pack.flash_modules.flexiact.training.token_training import (
    Drawn,
    TokenTraining,
    TokenTrainingConfig,
    draw,
)
from flash_pack.flash_modules.training.cost import counting
from flash_pack.flash_modules.training.loop import LoopConfig
from flash_pack.flash_modules.training.run_folder import RunFolder
from flash_pack.tests.backends.flexiact_oracle import Inputs, OracleAttention, small_inputs
from flash_pack.tests.backends.small_cogvideox import LAYERS, TOKENS, WIDTH, small_transformer, small_vae

STEPS = 3
LOOP = LoopConfig(steps=STEPS, learning_rate=3e-3, betas=(0.9, 0.95), weight_decay=1e-4, save_steps=1, keep=9)


def _lesson() -> Lesson:
    inputs = small_inputs()
    views = [
        EncodedView(mean, torch.full_like(mean, 0.3), picture[:1], torch.full_like(picture[:1], 0.2))
        for mean, picture in zip(inputs.latents_BFCHW, inputs.picture_BFCHW, strict=True)
    ]
    text_embeds, empty_embeds = inputs.text_embeds_BMC.split(1)
    return Lesson(
        views=views, caption="a dog", text_embeds=text_embeds, empty_embeds=empty_embeds, clip_sha256="ab"
    )


def _training(saving: Saving = SAVINGS[0]) -> TokenTraining:
    host = LearningTokens(small_transformer(), TOKENS, saving)
    return TokenTraining(host, _lesson(), TokenTrainingConfig(loop=LOOP))


def _run(training: TokenTraining, folder: Path, steps: int = STEPS) -> RunFolder:
    run = RunFolder(folder, "run", {})
    done = []
    training.run(run, on_step=done.append, stopped=lambda: len(done) >= steps)
    return run


class Oracle:
    """Tokens as parameters of motion queries, keys and values; the loss on the clean latents."""

    def __init__(self) -> None:
        self.transformer = small_transformer()
        self.tokens = [nn.Parameter(torch.zeros(TOKENS, WIDTH)) for _ in range(LAYERS)]
        nothing = torch.zeros(TOKENS)
        for layer, block in enumerate(self.transformer.transformer_blocks):
            attention = OracleAttention(layer, self.tokens[layer], nothing, nothing, lambda *_: 0.0)
            block.attn1.set_processor(attention)

    def loss(self, drawn: Drawn, lesson: Lesson) -> Tensor:
        alpha = float(alphas_cumprod()[drawn.timestep])
        noisy = math.sqrt(alpha) * drawn.clean_FCHW + math.sqrt(1 - alpha) * drawn.noise_FCHW
        text_embeds = lesson.text_embeds if drawn.with_text else lesson.empty_embeds
        inputs = Inputs(noisy[None], drawn.picture_FCHW[None], text_embeds)
        clean = (
            math.sqrt(alpha) * noisy
            - math.sqrt(1 - alpha) * inputs.velocity(self.transformer, drawn.timestep)[0]
        )
        i = drawn.pair
        difference, wanted = (math.sqrt(2) * x[i + 1] - x[i] for x in (clean, drawn.clean_FCHW))
        return ((clean - drawn.clean_FCHW) ** 2 / (1 - alpha)).mean() + ((difference - wanted) ** 2).mean()


def test_three_steps_are_those_of_the_method(tmp_path: Path) -> None:
    training, oracle = _training(), Oracle()
    optimizer = torch.optim.AdamW(oracle.tokens, lr=3e-3, betas=(0.9, 0.95), weight_decay=1e-4)
    for step in range(STEPS):
        drawn = draw(training.lesson.views, training.config, step)
        loss, wanted = training.loss(step), oracle.loss(drawn, training.lesson)
        assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
        loss.backward()
        wanted.backward()
        for tokens, theirs in zip(training.host.tokens.values(), oracle.tokens, strict=True):
            assert tokens.grad is not None
            assert theirs.grad is not None
            assert (tokens.grad - theirs.grad).norm() / theirs.grad.norm() < 1e-5
            tokens.grad = None
        nn.utils.clip_grad_norm_(oracle.tokens, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        _run(training, tmp_path, steps=1)
        for tokens, theirs in zip(training.host.tokens.values(), oracle.tokens, strict=True):
            assert (tokens - theirs).norm() / theirs.norm() < 1e-5


def test_only_tokens_learn(tmp_path: Path) -> None:
    training = _training()
    host = training.host
    assert isinstance(host, LearningTokens)
    before = {name: value.clone() for name, value in host.transformer.state_dict().items()}
    _run(training, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in host.transformer.state_dict().items())
    assert all(tokens.abs().min() > 0 for tokens in host.tokens.values())


@pytest.mark.parametrize("saving", SAVINGS[1:])
def test_what_saves_memory_changes_nothing(saving: Saving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving_module, "copied", lambda weight, device: weight.clone())  # as to a GPU
    plain, checkpointed = _training(), _training(saving)
    losses = [training.loss(0) for training in (plain, checkpointed)]
    for loss in losses:
        loss.backward()
    assert torch.equal(*losses)
    for one, other in zip(plain.host.tokens.values(), checkpointed.host.tokens.values(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_checkpointing_runs_blocks_again() -> None:
    calls = []
    for saving in SAVINGS:
        training = _training(saving)
        assert isinstance(training.host, LearningTokens)
        seen: list[None] = []
        for block in training.host.transformer.transformer_blocks:
            block.attn1.register_forward_hook(lambda *_, seen=seen: seen.append(None))
        training.loss(0).backward()
        calls.append(len(seen))
    assert calls == [LAYERS, *([2 * LAYERS] * 4)]


@pytest.mark.parametrize("saving", SAVINGS[3:])
def test_copies_of_two_blocks_at_most_are_held(saving: Saving, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block's weights are copied twice in a step, and the copies go when the block is done with."""
    held: set[int] = set()
    most, made = 0, 0

    def copied(weight: Tensor, device: torch.device) -> Tensor:
        nonlocal most, made
        copy = weight.clone()
        storage, number = copy.untyped_storage(), made
        held.add(number)
        weakref.finalize(storage, held.discard, number)
        made, most = made + 1, max(most, len(held))
        return copy

    monkeypatch.setattr(saving_module, "copied", copied)
    host = LearningTokens(small_transformer(num_layers=6), TOKENS, saving)
    inputs = small_inputs((1, 3, 16, 8, 12))
    ones = torch.ones(1, dtype=torch.long)
    velocity = host.predict(inputs.latents_BFCHW, inputs.picture_BFCHW, ones, inputs.text_embeds_BMC)
    weights = len(list(host.transformer.transformer_blocks[0].parameters()))
    assert (made, most) == (6 * weights, weights)
    velocity.square().mean().backward()
    assert made == 2 * 6 * weights
    assert most <= 2 * weights
    assert not held


def test_blocks_that_wait_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    host = LearningTokens(small_transformer(), TOKENS, SAVINGS[3])
    monkeypatch.setattr(host, "weights", {})  # what learns cannot go to a device without numbers
    host.to(torch.device("meta"))
    assert host.device.type == "meta"
    for name, weight in host.transformer.named_parameters():
        assert weight.device.type == ("cpu" if name.startswith("transformer_blocks.") else "meta")


def test_weights_that_wait_without_running_again_are_refused() -> None:
    with pytest.raises(
        ValueError, match="must run again, or all copies are kept: give --checkpointing blocks"
    ):
        Saving(checkpointing="none", offload=True)


def test_the_setting_that_saves_as_little_as_fits_is_found() -> None:
    host = LearningTokens(small_transformer(num_layers=6), TOKENS, SAVINGS[0])
    needs = [step_needs(host, saving) for saving in SAVINGS]
    assert host.saving == SAVINGS[0]
    device = [one.device_bytes for one in needs]
    assert device == sorted(device, reverse=True)
    blocks = sum(4 * weight.numel() for weight in host.transformer.transformer_blocks.parameters())
    assert device[1] - device[3] == device[2] - device[4] == blocks - blocks // 3
    assert needs[4].waiting_bytes == needs[2].waiting_bytes + blocks
    for number in (1, 2, 3, 4):
        assert nearest_that_fits(host, SAVINGS[0], device[number]) == (SAVINGS[number], needs[number])
    assert nearest_that_fits(host, SAVINGS[0], 0) == (SAVINGS[4], needs[4])
    assert nearest_that_fits(host, SAVINGS[4], 0) == (SAVINGS[4], needs[4])


def test_what_is_kept_of_blocks_goes_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The inputs of each block: video, text and the timestep's embedding."""
    packed: list[int] = []

    class Watched(torch.autograd.graph.saved_tensors_hooks):
        def __init__(self) -> None:
            super().__init__(lambda x: packed.append(x.ndim) or x, lambda x: x)

    monkeypatch.setattr(saving_module, "save_on_cpu", Watched)
    _training(Saving(checkpointing="cpu")).loss(0).backward()
    assert packed == [3, 3, 2] * LAYERS


def test_a_run_that_goes_on_is_one_that_never_stopped(tmp_path: Path) -> None:
    whole = _training()
    _run(whole, tmp_path / "whole")
    _run(_training(), tmp_path / "parts", steps=1)
    rest = _training()
    _run(rest, tmp_path / "parts")
    for name, tokens in whole.host.tokens.items():
        assert torch.equal(rest.host.tokens[name], tokens)


def test_what_was_learned_performs_as_it_did_while_learning(tmp_path: Path) -> None:
    training, inputs = _training(), small_inputs()
    _run(training, tmp_path)
    action, host = training.learned("dog", STEPS), training.host
    assert isinstance(host, LearningTokens)
    with torch.inference_mode():
        wanted = inputs.velocity(host.transformer, 500)
        host.remove()
        plain = inputs.velocity(host.transformer, 500)
        add_transfer(host.transformer, [Performance(action=action, boost=RELEASED)])
        assert torch.equal(inputs.velocity(host.transformer, 500), wanted)
    assert torch.equal(plain, inputs.velocity(small_transformer(), 500))
    assert (action.steps, action.prompt, action.clip_sha256) == (STEPS, "a dog", "ab")


def test_moments_are_the_vaes() -> None:
    vae, video_FCHW = small_vae(), torch.rand(17, 3, 64, 96)
    mean, deviation = encode_moments(vae, video_FCHW)
    pixels = rearrange(video_FCHW, "f c h w -> 1 c f h w") * 2 - 1
    cache, parts = None, []
    for start, end in ((0, 9), (9, 17)):
        moments, cache = vae.encoder(pixels[:, :, start:end], conv_cache=cache)
        parts.append(moments)
    wanted_mean, log_variance = torch.cat(parts, dim=2)[0].chunk(2)
    torch.testing.assert_close(mean, 0.7 * wanted_mean.transpose(0, 1), atol=1e-5, rtol=1e-5)
    wanted = 0.7 * (log_variance.clamp(-30, 20) / 2).exp().transpose(0, 1)
    torch.testing.assert_close(deviation, wanted, atol=1e-5, rtol=1e-5)
    assert mean.shape == (5, 16, 8, 12)


def test_what_a_step_needs_is_what_all_blocks_take() -> None:
    """Counted on three blocks, and carried on to six."""
    host = LearningTokens(small_transformer(num_layers=6), TOKENS)
    needs = step_needs(host, Saving())
    inputs = small_inputs((1, 3, 16, 8, 12))
    with counting() as counter:
        velocity = host.predict(
            torch.empty_like(inputs.latents_BFCHW),
            torch.empty_like(inputs.picture_BFCHW),
            torch.ones(1, dtype=torch.long),
            torch.empty_like(inputs.text_embeds_BMC),
        )
        velocity.square().mean().backward()
    assert needs.flops == counter.cost.flops
    weights = sum(4 * weight.numel() for weight in host.transformer.parameters())
    tokens = 4 * 4 * 6 * TOKENS * WIDTH
    assert needs.device_bytes == pytest.approx(weights + tokens + counter.cost.peak_bytes, rel=0.02)
    waiting = step_needs(host, Saving(checkpointing="cpu"))
    assert 0 < waiting.waiting_bytes < needs.device_bytes - waiting.device_bytes + waiting.waiting_bytes


def test_tokens_that_are_taken_out_leave_no_checkpointing_behind() -> None:
    host = LearningTokens(small_transformer(), TOKENS)
    assert host.transformer.is_gradient_checkpointing
    host.remove()
    assert not host.transformer.is_gradient_checkpointing
    host.add()
    assert host.transformer.is_gradient_checkpointing


def test_what_encoding_needs_is_counted() -> None:
    """More frames of a chunk and larger ones take more; chunks come one after the other."""
    vae = small_vae()
    small, large, long = (encoding_bytes(vae, video) for video in ((9, 32, 48), (9, 64, 48), (25, 32, 48)))
    weights = sum(4 * weight.numel() for weight in vae.parameters())
    assert large - weights == pytest.approx(2 * (small - weights), rel=0.1)
    assert small < long < 2 * small
