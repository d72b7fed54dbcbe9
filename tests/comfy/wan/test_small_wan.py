"""The small Wan of the studies: its committed weights, and its host, which learns through the product."""

import sys
from pathlib import Path

import pytest
import torch

from flash_pack.tests.comfy.wan.small_wan import draw

sys.path.append(str(Path(__file__).resolve().parents[3]))  # last: `nodes` is ComfyUI's


@pytest.fixture(autouse=True)
def _training(learning):
    """Outside of inference mode."""


@pytest.fixture
def host():
    from actors.base.small_base import FOLDER
    from actors.studies.wan_host import SmallWanHost
    from actors.studies.wan_transfer import WAN_ARMS

    lesson = WAN_ARMS["#5"].lesson("arm wave", seed=0, steps=1, num_clips=1, size=96)
    return SmallWanHost(lesson.config, FOLDER, torch.device("cpu"))


def test_it_predicts_what_its_net_does_before_it_learns(host):
    from actors.base.wan_base import read_net, velocity

    latents, timestep, text = (
        draw(2, 8, 4, 24, 24),
        torch.tensor([900.0, 300.0]),
        host.embed("a person is waving"),
    )
    with torch.no_grad():
        ours = host.predict(latents, timestep, text)
        plain = velocity(read_net(), latents, timestep, text.expand(2, -1, -1))
    assert float((ours - plain).norm() / plain.norm()) <= 1e-5


def test_it_knows_drawn_clips(host):
    """Half of what there is to know of a clip's velocity at high noise, and nothing of shuffled frames."""
    from actors.base.pool import actor_clip

    clip = actor_clip(7, 7)
    video_FCHW = torch.from_numpy(clip.frames_FHW3).movedim(-1, 1).float() / 255
    with host.encoder() as encode, torch.no_grad():
        latents = encode(video_FCHW)[None]
    noise, timestep, text = draw(1, 8, 4, 24, 24, seed=3), torch.tensor([700.0]), host.embed(clip.caption)

    def error(latents):
        with torch.no_grad():
            found = host.predict(host.noise.noised(latents, noise, timestep), timestep, text)
        return float((found - host.noise.target(latents, noise, timestep))[:, 1:].square().mean())

    still = latents[:, :1].expand_as(latents)
    alone = float((latents - still)[:, 1:].square().mean())  # of a net that says: frame 0, for ever
    assert error(latents) < 0.5 * host.noise.target(latents, noise, timestep)[:, 1:].square().mean()
    assert error(latents) < error(latents[:, [0, 4, 1, 6, 2, 7, 3, 5]]) or alone < 0.05


def test_its_file_and_its_sample(host, tmp_path: Path):
    from flash_modules.flash.sampling import SamplerConfig

    picture = draw(1, 4, 24, 24)
    with torch.no_grad():
        text = host.embed("a person is waving")
        video = host.sample(picture, text, text, seed=0, config=SamplerConfig(num_frames=8, steps=2, cfg=1.0))
    assert video.shape == host.latent_shape(8, 96, 96) == (8, 4, 24, 24)
    assert torch.equal(video[:1], picture)
    assert torch.isfinite(video).all()
