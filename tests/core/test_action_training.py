"""Training of an action on a host that is none of those that exist: all that it needs is the protocol."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flash_pack.flash_modules.animatediff.noise_schedule import alphas_cumprod
from flash_pack.flash_modules.flash.adain import AdaINConfig
from flash_pack.flash_modules.flash.augment import AugmentConfig
from flash_pack.flash_modules.flash.motion_alignment import AlignmentConfig, VideoCall
from flash_pack.flash_modules.flash.sampling import SamplerConfig, sample_video
from flash_pack.flash_modules.flash.training.action_training import ActionTraining, ActionTrainingConfig
from flash_pack.flash_modules.flash.training.latent_pool import PoolConfig
from flash_pack.flash_modules.flash.training.method import VARIANTS, MethodConfig
from flash_pack.flash_modules.training.clips import Clip, clip_hashes, find_clips
from flash_pack.flash_modules.training.loop import LoopConfig
from flash_pack.flash_modules.training.run_folder import RunFolder, read_losses
from flash_pack.flash_modules.training.sampling import SamplingConfig, clip_at_step
from flash_pack.tests.core.small_clips import write_folder
from flash_pack.tests.core.tiny_host import TinyHost, tiny_encode

SIZE, F = 16, 3
CONFIG = ActionTrainingConfig(
    method=MethodConfig(augment=AugmentConfig(size=SIZE)),
    sampling=SamplingConfig(num_frames=F),
    pool=PoolConfig(per_clip=2),
    loop=LoopConfig(steps=3, learning_rate=0.1),
)
Start = Callable[..., ActionTraining[TinyHost]]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Clip, ...]:
    folder = tmp_path_factory.mktemp("clips")
    for name in ("a", "b"):
        write_folder(folder / "jump" / name)
    (folder / "jump" / "b.txt").write_text("a girl jumps")
    return find_clips([folder / "jump"]).used


@pytest.fixture
def start(clips: tuple[Clip, ...]) -> Start:
    """A training whose host is as new."""

    def start(
        config: ActionTrainingConfig = CONFIG, host: TinyHost | None = None
    ) -> ActionTraining[TinyHost]:
        return ActionTraining(host or TinyHost(), clips, config)

    return start


def run_folder(training: ActionTraining[TinyHost], tmp_path: Path, name: str = "run") -> RunFolder:
    return RunFolder(tmp_path, name, training.settings(1))


def test_weights_of_any_host_learn_from_pairs(start: Start, tmp_path: Path) -> None:
    training, entries = start(), []
    folder = run_folder(training, tmp_path)
    progress = training.run(folder, on_entry=lambda: entries.append(None))
    assert progress.step == len(read_losses(folder.path / "loss.csv")) == 3
    assert len(entries) == 2 * 2  # of two clips
    assert all((weight != training.before[name]).all() for name, weight in training.host.weights.items())
    calls = training.host.calls
    assert [call.num_pairs for call in calls if call] == [1, 1, 1]
    assert all(call.swaps_L.sum() == 2 for call in calls if call)  # half of the three layers
    assert sorted(training.host.prompts) == ["", "a girl jumps", "jump"]


def test_a_still_original_in_the_same_noise_comes_first_where_channels_are_chosen_by_it(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = replace(CONFIG.method, alignment=AlignmentConfig(relative_to_still=True))
    training, seen = start(replace(CONFIG, method=method)), []
    predict = training.host.predict

    def watched(latents: Tensor, timestep: Tensor, text: Tensor, call: VideoCall | None = None) -> Tensor:
        seen.append((latents.clone(), timestep, text, torch.is_grad_enabled()))
        return predict(latents, timestep, text, call)

    monkeypatch.setattr(training.host, "predict", watched)
    training.run(run_folder(training, tmp_path))
    calls = training.host.calls
    assert [call.num_pairs for call in calls] == [0, 1] * 3
    for i in (0, 2, 4):
        assert calls[i].stills is calls[i + 1].stills
        assert calls[i].stills.num_videos == 1
        (still, *of_still, gradient), (pair, *of_pair, _) = seen[i], seen[i + 1]
        assert not gradient
        assert torch.equal(of_still[0], of_pair[0][:1])
        assert torch.equal(of_still[1], of_pair[1][:1])
        assert torch.equal(still[:, :1], pair[:1, :1])
        signal = alphas_cumprod(torch.float64)[int(of_still[0])].sqrt()
        pool = training.pool(tmp_path / "pool")
        clip = clip_at_step(training.clips, 0, i // 2)
        latents = pool.entry(clip, i // 2)[:1]
        moved = (signal * (latents - latents[:, :1])).float()
        torch.testing.assert_close(pair[:1, 1:] - still[:, 1:], moved[:, 1:], atol=2e-3, rtol=1e-3)


def test_without_twins_no_call_has_pairs(start: Start, tmp_path: Path) -> None:
    training = start(replace(CONFIG, method=replace(VARIANTS[1], augment=AugmentConfig(size=SIZE))))
    training.run(run_folder(training, tmp_path))
    assert training.host.calls == [None] * 3


class Cancelled(BaseException):
    """No Exception, as the cancel of a host."""


class Cancel(torch.autograd.Function):
    """Gives its input, and raises in the backward pass."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        raise Cancelled


class CancelledHost(TinyHost):
    """Is cancelled in the backward pass of the third step."""

    def predict(
        self, latents: Tensor, timestep: Tensor, text: Tensor, call: VideoCall | None = None
    ) -> Tensor:
        found_BFCHW = super().predict(latents, timestep, text, call)
        return Cancel.apply(found_BFCHW) if len(self.calls) == 3 else found_BFCHW


def test_cancelled_within_the_backward_pass_it_goes_on_bit_for_bit(start: Start, tmp_path: Path) -> None:
    whole, cut, rest, notes = start(), start(host=CancelledHost()), start(), []
    whole.run(run_folder(whole, tmp_path, "whole"))
    folder = run_folder(cut, tmp_path)
    with pytest.raises(Cancelled):
        cut.run(folder)
    assert folder.checkpoints() == [2]
    assert all(weight.grad is None for weight in cut.host.weights.values())
    rest.run(run_folder(rest, tmp_path), on_note=notes.append)
    assert notes == ["Going on from step 2."]
    assert all(torch.equal(weight, whole.host.weights[name]) for name, weight in rest.host.weights.items())
    assert read_losses(folder.path / "loss.csv") == read_losses(tmp_path / "whole" / "loss.csv")


def test_settings_name_the_hosts_models_and_the_clips(start: Start, clips: tuple[Clip, ...]) -> None:
    settings = start().settings(2)
    assert settings["base_sha256"] == "tiny"
    assert [clip["caption"] for clip in settings["clips"]] == ["jump", "a girl jumps"]
    assert [clip["sha256"] for clip in settings["clips"]] == clip_hashes(clips)
    assert (settings["parts_of_a_step"], settings["dtype"]) == (2, "float32")
    assert settings["sampling"] == {"num_frames": F, "stride": 4}


def test_latents_have_the_hosts_size(start: Start, tmp_path: Path) -> None:
    entry_VFCHW = start().pool(tmp_path).entry(1, 0)
    assert entry_VFCHW.shape == (2, F, 3, SIZE // 4, SIZE // 4)


def test_cost_is_counted_at_the_asked_checkpointing_which_is_then_the_configured_one(start: Start) -> None:
    training = start(replace(CONFIG, checkpointing="motion"))
    small, large = training.cost(), training.cost(2 * SIZE, "all")
    assert training.host.checkpointing == ["motion", "motion", "all", "motion"]
    assert large.peak_bytes > 3 * small.peak_bytes
    assert all(weight.grad is None for weight in training.host.weights.values())
    assert training.host.calls[0].num_pairs == 1


def test_a_failed_count_puts_the_checkpointing_back(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    training = start()

    def fail(*_: object) -> Tensor:
        raise Cancelled

    monkeypatch.setattr(training.host, "predict", fail)
    with pytest.raises(Cancelled):
        training.cost(checkpointing="all")
    assert training.host.checkpointing == ["all", "none"]


def test_a_video_is_made_with_what_is_learned_so_far(start: Start, tmp_path: Path) -> None:
    training, sampler = start(), SamplerConfig(num_frames=F, steps=2)
    image_1HWC = torch.rand(1, SIZE, 2 * SIZE, 3)
    untrained = torch.stack(list(training.animate(image_1HWC, "jump", 5, sampler)))
    training.run(run_folder(training, tmp_path))
    frames_FHWC = torch.stack(list(training.animate(image_1HWC, "jump", 5, sampler)))
    host = training.host
    latents_FCHW = sample_video(
        host.predict,
        tiny_encode(image_1HWC.movedim(-1, 1)),
        host.embed("jump"),
        host.embed(""),
        prediction="epsilon",
        seed=5,
        config=sampler,
        style=AdaINConfig(),
    )
    assert frames_FHWC.shape == (F, SIZE // 4, 2 * SIZE // 4, 3)
    assert torch.equal(frames_FHWC, torch.stack(list(host.decode(latents_FCHW))))
    assert not torch.equal(frames_FHWC[1:], untrained[1:])


def test_a_prompt_is_embedded_once(start: Start) -> None:
    training = start()
    sampler = SamplerConfig(num_frames=F, steps=1)
    for _ in range(2):
        list(training.animate(torch.rand(1, SIZE, SIZE, 3), "a boy jumps", 5, sampler))
    assert training.host.prompts.count("a boy jumps") == 1


@pytest.mark.parametrize("standalone", [False, True])
def test_the_host_writes_what_was_learned_and_from_what(
    start: Start, clips: tuple[Clip, ...], tmp_path: Path, standalone: bool
) -> None:
    new, training = TinyHost(), start()
    training.run(run_folder(training, tmp_path))
    training.write(tmp_path / "jump.safetensors", 3, standalone=standalone)
    ((path, learned, told),) = training.host.written
    assert (path, told, learned.steps) == (tmp_path / "jump.safetensors", standalone, 3)
    assert learned.weights is training.host.weights
    assert all(torch.equal(weight, new.weights[name]) for name, weight in learned.before.items())
    assert learned.prompts == ("jump", "a girl jumps")
    assert learned.fps == pytest.approx(24 / 4)
    assert learned.clip_hashes == tuple(clip_hashes(clips))
    assert learned.config is CONFIG


def test_a_size_of_one_latent_pixel_is_refused(start: Start) -> None:
    with pytest.raises(ValueError, match="`size` must be 40 pixels or more with this base, but it is 16"):
        start(host=type("Coarse", (TinyHost,), {"vae_factor": 20})())


def test_a_text_drop_that_is_no_chance_is_refused() -> None:
    with pytest.raises(ValueError, match="`text_drop` is a chance between 0 and 1, but it is 2"):
        ActionTrainingConfig(text_drop=2)
