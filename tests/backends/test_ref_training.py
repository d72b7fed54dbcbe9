"""Learning a RefAdapter on diffusers' CogVideoX, against the method: low-rank layers, slow attention."""

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from flash_pack.flash_modules.backends.diffusers.cogvideox import add_transfer
from flash_pack.flash_modules.backends.diffusers.cogvideox.train import LearningRefAdapter
from flash_pack.flash_modules.flexiact.noise_schedule import alphas_cumprod
from flash_pack.flash_modules.flexiact.ref_adapter_file import read_ref_adapter, write_ref_adapter
from flash_pack.flash_modules.flexiact.training import saving as saving_module
from flash_pack.flash_modules.flexiact.training.needs import step_needs
from flash_pack.flash_modules.flexiact.training.ref_clips import EncodedClip
from flash_pack.flash_modules.flexiact.training.ref_training import (
    Drawn,
    Lessons,
    RefTraining,
    RefTrainingConfig,
    draw,
)
from flash_pack.flash_modules.flexiact.training.saving import SAVINGS, Saving
from flash_pack.flash_modules.training.loop import LoopConfig
from flash_pack.flash_modules.training.run_folder import RunFolder
from flash_pack.flash_modules.training.sampling import clip_at_step
from flash_pack.tests.backends.flexiact_oracle import Inputs, OracleAttention, small_inputs
from flash_pack.tests.backends.small_cogvideox import LAYERS, RANK, WIDTH, small_transformer
from flash_pack.tests.core.small_clips import clip

STEPS = 3
LOOP = LoopConfig(steps=STEPS, learning_rate=3e-3, betas=(0.9, 0.95), weight_decay=1e-4, save_steps=1, keep=9)
PARTS = ("q", "k", "v", "out")


def _lessons() -> Lessons:
    """Two clips of two windows and three pictures each."""
    inputs, generator = small_inputs(), torch.Generator().manual_seed(3)
    windows = torch.randn(2, 2, *inputs.latents_BFCHW.shape[1:], generator=generator)
    pictures = torch.randn(2, 3, 1, *inputs.latents_BFCHW.shape[2:], generator=generator)
    encoded = [
        EncodedClip(window, torch.full_like(window, 0.3), picture, torch.full_like(picture, 0.2))
        for window, picture in zip(windows, pictures, strict=True)
    ]
    texts = dict(zip(("jump", ""), inputs.text_embeds_BMC.split(1), strict=True))
    clips = [clip(20, 8, name="a.mp4"), clip(20, 8, name="b.mp4")]
    return Lessons(clips=clips, encoded=encoded.__getitem__, text_embeds=texts.__getitem__)


def _training(saving: Saving = SAVINGS[0], **changes: float) -> RefTraining:
    host = LearningRefAdapter(small_transformer(), RANK, 0, saving)
    return RefTraining(host, _lessons(), RefTrainingConfig(loop=LOOP, rank=RANK, **changes))


def _run(training: RefTraining, folder: Path, steps: int = STEPS) -> RunFolder:
    run = RunFolder(folder, "run", {})
    done = []
    training.run(run, on_step=done.append, stopped=lambda: len(done) >= steps)
    return run


class Oracle:
    """Low-rank layers as the paper has them, scaled by 32 / 64; the loss on the clean latents."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.transformer = small_transformer()
        self.weights = {name: nn.Parameter(weight.detach().clone()) for name, weight in weights.items()}
        none, nothing = torch.zeros(0, WIDTH), torch.zeros(0)
        for layer, block in enumerate(self.transformer.transformer_blocks):
            block.attn1.set_processor(OracleAttention(layer, none, nothing, nothing, self._low_rank))

    def _low_rank(self, layer: int, part: str, x: Tensor) -> Tensor:
        down, up = (self.weights[f"{layer}.{part}.{which}"] for which in ("down", "up"))
        return 32 / 64 * linear(linear(x, down), up)

    def loss(self, drawn: Drawn, lessons: Lessons) -> Tensor:
        alpha = float(alphas_cumprod()[drawn.timestep])
        noisy = math.sqrt(alpha) * drawn.clean_FCHW + math.sqrt(1 - alpha) * drawn.noise_FCHW
        inputs = Inputs(
            noisy[None], drawn.picture_FCHW[None], lessons.text_embeds("jump" if drawn.with_text else "")
        )
        velocity = inputs.velocity(self.transformer, drawn.timestep)[0]
        clean = math.sqrt(alpha) * noisy - math.sqrt(1 - alpha) * velocity
        return ((clean - drawn.clean_FCHW) ** 2 / (1 - alpha)).mean()


def _gradients(weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    gradients = {name: weight.grad for name, weight in weights.items()}
    assert all(gradient is not None for gradient in gradients.values())
    return gradients


def _off(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """Norm of the difference of all together over their norm: single ones may be next to nothing."""
    assert found.keys() == wanted.keys()
    pairs = [(found[name].detach(), wanted[name].detach()) for name in wanted]
    off = sum(float((a - b).square().sum()) for a, b in pairs)
    whole = sum(float(b.square().sum()) for _, b in pairs)
    return math.sqrt(off / whole)


def test_three_steps_are_those_of_the_method(tmp_path: Path) -> None:
    training = _training(text_drop=0.5)
    host, lessons = training.host, training.lessons
    oracle = Oracle(dict(host.weights))
    optimizer = torch.optim.AdamW(oracle.weights.values(), lr=3e-3, betas=(0.9, 0.95), weight_decay=1e-4)
    texts = set()
    for step in range(STEPS):
        drawn = draw(lessons.encoded(clip_at_step(lessons.clips, 0, step)), training.config, step)
        texts.add(drawn.with_text)
        loss, wanted = training.loss(step), oracle.loss(drawn, lessons)
        assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
        loss.backward()
        wanted.backward()
        assert _off(_gradients(host.weights), _gradients(oracle.weights)) < 1e-5
        for weight in host.weights.values():
            weight.grad = None
        nn.utils.clip_grad_norm_(oracle.weights.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        _run(training, tmp_path, steps=1)
        assert _off(host.weights, oracle.weights) < 1e-5
    assert texts == {True, False}


def test_only_the_low_rank_parts_learn_and_all_of_them_do(tmp_path: Path) -> None:
    training = _training()
    host = training.host
    assert isinstance(host, LearningRefAdapter)
    before = {name: value.clone() for name, value in host.transformer.state_dict().items()}
    started = {name: weight.detach().clone() for name, weight in host.weights.items()}
    _run(training, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in host.transformer.state_dict().items())
    assert set(host.weights) == {
        f"{layer}.{part}.{which}" for layer in range(LAYERS) for part in PARTS for which in ("down", "up")
    }
    for name, weight in host.weights.items():
        assert not torch.equal(weight, started[name]), name


def test_before_the_first_step_the_base_is_as_it_was() -> None:
    inputs = small_inputs()
    host = LearningRefAdapter(small_transformer(), RANK, 0, SAVINGS[0])
    assert torch.equal(inputs.velocity(host.transformer, 300), inputs.velocity(small_transformer(), 300))


@pytest.mark.parametrize("saving", SAVINGS[1:])
def test_what_saves_memory_changes_nothing(saving: Saving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving_module, "copied", lambda weight, device: weight.clone())  # as to a GPU
    plain, saved = _training(), _training(saving)
    for training in (plain, saved):
        for weight in training.host.weights.values():
            weight.data += 0.05
    losses = [training.loss(0) for training in (plain, saved)]
    for loss in losses:
        loss.backward()
    assert torch.equal(*losses)
    for name, weight in plain.host.weights.items():
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, saved.host.weights[name].grad)


def test_a_run_that_goes_on_is_one_that_never_stopped(tmp_path: Path) -> None:
    whole = _training()
    _run(whole, tmp_path / "whole")
    _run(_training(), tmp_path / "parts", steps=1)
    rest = _training()
    _run(rest, tmp_path / "parts")
    for name, weight in whole.host.weights.items():
        assert torch.equal(rest.host.weights[name], weight)


def test_the_file_in_use_is_what_was_trained(tmp_path: Path) -> None:
    training, inputs = _training(), small_inputs()
    _run(training, tmp_path)
    host = training.host
    assert isinstance(host, LearningRefAdapter)
    write_ref_adapter(tmp_path / "ref.safetensors", training.learned("ref", STEPS, ["ab", "cd"]))
    adapter = read_ref_adapter(tmp_path / "ref.safetensors")
    with torch.inference_mode():
        wanted = inputs.velocity(host.transformer, 500)
        host.remove()
        plain = inputs.velocity(host.transformer, 500)
        remove = add_transfer(host.transformer, [], adapter, 1.0)
        found = inputs.velocity(host.transformer, 500)
        remove()
        assert torch.equal(plain, inputs.velocity(small_transformer(), 500))
        host.add()
        assert torch.equal(inputs.velocity(host.transformer, 500), wanted)
    assert (found - wanted).norm() < 1e-6 * wanted.norm()
    assert (plain - wanted).norm() > 1e-3 * wanted.norm()
    assert adapter.header["flash.steps"] == "3"
    assert adapter.header["flash.data"] == '{"n_clips": 2, "sha256": ["ab", "cd"]}'
    assert adapter.summary == f"ref: rank {RANK}, width {WIDTH}, for {LAYERS} layers of CogVideoX-5b-I2V"


def test_what_a_step_needs_counts_what_learns() -> None:
    """With its gradient and AdamW's two averages, in fp32."""
    small, large = (
        step_needs(LearningRefAdapter(small_transformer(num_layers=6), rank, 0), Saving())
        for rank in (RANK, 8 * RANK)
    )
    more = 4 * 6 * 2 * 7 * RANK * WIDTH
    assert large.device_bytes - small.device_bytes >= 4 * 4 * more
    assert large.flops > small.flops
