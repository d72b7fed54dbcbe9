"""Motion alignment in diffusers' U-Net."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from flash_pack.flash_modules.attention import attend
from flash_pack.flash_modules.backends.diffusers.sd15 import add_motion
from flash_pack.flash_modules.backends.diffusers.sd15.train.alignment import add_alignment
from flash_pack.flash_modules.backends.diffusers.sd15.train.trainable import select_trainable
from flash_pack.flash_modules.flash.cross_frame import with_first_frame
from flash_pack.flash_modules.flash.motion_alignment import AlignmentConfig, Stills, VideoCall
from flash_pack.flash_modules.flash.training.loss import draw_noise, total_loss
from flash_pack.flash_modules.flash.training.noise_law import DiffusionNoise, TimestepConfig
from flash_pack.tests.backends.aligned_models import (
    BOTH,
    CORRESPONDENCE,
    FEATURES,
    NUM_LAYERS,
    OFF,
    F,
    P,
    aligned,
    animated,
    assert_same,
    difference,
    inputs,
    learn,
    noise_losses,
    pair_call,
    plain,
    run,
    unchecked,
)
from flash_pack.tests.backends.small_models import small_motion, small_unet


def test_small_unet_has_so_many_layers() -> None:
    assert len(aligned(BOTH).layers) == NUM_LAYERS


# The plain path.


@pytest.mark.parametrize(
    ("config", "checkpointing"),
    [
        (BOTH, "none"),
        (BOTH, "all"),
        (replace(BOTH, after_attention=False, first_frame_only=True), "motion"),
    ],
)
def test_without_pairs_it_is_the_animated_unet_bit_for_bit(
    config: AlignmentConfig, checkpointing: str
) -> None:
    model = aligned(config, checkpointing)
    assert torch.equal(run(model, None), plain())
    run(model, pair_call())
    assert torch.equal(run(model, None), plain())
    assert torch.equal(model.model.predict(*inputs()), plain())


def test_nothing_aligned_is_the_animated_unet_bit_for_bit() -> None:
    assert torch.equal(run(aligned(OFF), pair_call(0)), plain())


# Where alignment acts, by a slow version that writes down every layer.


class Slow:
    """Eq. 3-5 by plain wrappers of modules, one video after the other, without our hooks and processors."""

    def __init__(self, config: AlignmentConfig, *, mid: bool = False) -> None:
        self.model, self.config = animated(mid=mid), config
        self.swapped: list[int] = []
        self.still: dict[object, Tensor] | None = None
        """Scores of still originals by place: noted while there are none of that place."""
        wrapped = [module for name, module in self.model.motion.named_modules() if self.is_place(name)]
        for module in wrapped:
            module.forward = self.align(module.forward)
        self.num_places = len(wrapped)
        layers = [name for name in self.model.unet.attn_processors if name.endswith(".attn1.processor")]
        for i, name in enumerate(layers):
            layer = self.model.unet.get_submodule(name.removesuffix(".processor"))
            layer.forward = self.swap(layer, layer.forward, i)

    @torch.no_grad()
    def run(self, swapped: list[int]) -> Tensor:
        self.swapped = swapped
        return self.model.predict(*inputs())

    @torch.no_grad()
    def run_beyond_still(self) -> Tensor:
        self.still = {}
        self.model.predict(*still_inputs())
        return self.run([])

    def is_place(self, name: str) -> bool:
        above = ".attention_blocks." if self.config.after_attention else ".motion_modules."
        return name.rpartition(above)[2].isdigit() and above in name

    def align(self, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        place = object()

        def run(features: Tensor, *args: Any) -> Tensor:
            out = forward(features, *args).clone()
            if self.config.tau == 100:
                return out
            noting = self.still is not None and place not in self.still
            count = P if noting else 2 * P
            if self.config.after_attention:
                videos = rearrange(out, "(b n) f c -> b f c n", b=count)
            else:
                videos = rearrange(out, "(b f) c h w -> b f c (h w)", b=count)
            start = int(self.config.exclude_first)
            if noting:
                self.still[place] = videos[:, start:].double().std(1, correction=0).mean(-1)
                return out
            for p in range(P):
                ori, aug = videos[p, start:].double(), videos[P + p, start:]
                score = ori.std(0, correction=0).mean(-1)
                if self.still:
                    score = score - self.still[place][p]
                for c in torch.nonzero(score > score.quantile(self.config.tau / 100))[:, 0].tolist():
                    moved = (ori[:, c] - ori[:, c].mean(0)) / (ori[:, c].std(0, correction=0) + 1e-6)
                    own = aug[:, c].double()
                    videos[P + p, start:, c] = moved * own.std(0, correction=0) + own.mean(0)
            return self.folded(videos, out.shape)

        return run

    def folded(self, videos: Tensor, shape: torch.Size) -> Tensor:
        if self.config.after_attention:
            return rearrange(videos, "b f c n -> (b n) f c")
        return rearrange(videos, "b f c (h w) -> (b f) c h w", h=shape[-2])

    def swap(self, layer: nn.Module, plain: Callable[..., Tensor], index: int) -> Callable[..., Tensor]:
        def run(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
            if index not in self.swapped:
                return plain(hidden_states)
            source = torch.cat([hidden_states[: P * F]] * 2)  # what queries and keys of both are made of
            q, k = layer.to_q(source), with_first_frame(layer.to_k(source), F)
            v = with_first_frame(layer.to_v(hidden_states), F)
            return layer.to_out[0](attend(q, k, v, layer.heads))

        return run


@pytest.mark.parametrize("exclude_first", [True, False])
@pytest.mark.parametrize(("after_attention", "mid"), [(False, False), (False, True), (True, True)])
def test_features_are_aligned_after_each_motion_module_or_each_attention(
    after_attention: bool, mid: bool, exclude_first: bool
) -> None:
    config = replace(FEATURES, after_attention=after_attention, exclude_first=exclude_first, tau=80.0)
    found = run(aligned(config, mid=mid), pair_call(0))
    assert difference(found, Slow(config, mid=mid).run([])) < 1e-5
    assert difference(found[P:], plain(mid=mid)[P:]) > 1e-2


def still_inputs() -> tuple[Tensor, Tensor, Tensor]:
    """As if frame 0 of each original stood still in noise."""
    latents, timestep, text = inputs()
    noise = torch.randn(P, F, *latents.shape[2:], generator=torch.Generator().manual_seed(5))
    return latents[:P, :1] + noise, timestep[:P], text[:P]


@pytest.mark.parametrize("exclude_first", [True, False])
@pytest.mark.parametrize("after_attention", [True, False])
def test_channels_are_chosen_beyond_those_of_a_still_clip(after_attention: bool, exclude_first: bool) -> None:
    config = replace(FEATURES, after_attention=after_attention, exclude_first=exclude_first, tau=80.0)
    config = replace(config, relative_to_still=True)
    model, stills = aligned(config), Stills(num_videos=P)
    with torch.no_grad():
        alone = model(*still_inputs(), VideoCall(stills=stills))
        assert torch.equal(alone, animated().predict(*still_inputs()))
    found = run(model, replace(pair_call(0), stills=stills))
    assert difference(found, Slow(config).run_beyond_still()) < 1e-5
    assert difference(found[P:], run(model, pair_call(0))[P:]) > 1e-2


def test_slow_version_reaches_every_place() -> None:
    assert Slow(replace(FEATURES, after_attention=False)).num_places == 10
    assert Slow(FEATURES, mid=True).num_places == 22


def test_exactly_the_drawn_layers_take_the_originals_correspondence() -> None:
    slow = Slow(CORRESPONDENCE)
    for swapped in ([0], [1], [2], [3], [4], [5], [0, 2, 5]):
        found = run(aligned(CORRESPONDENCE), pair_call(swapped))
        assert difference(found, slow.run(swapped)) < 1e-5
        assert difference(found[P:], plain()[P:]) > 1e-3


def test_both_together() -> None:
    found = run(aligned(BOTH), pair_call([1, 4]))
    assert difference(found, Slow(BOTH).run([1, 4])) < 1e-5


def test_first_frame_part_alone_is_another_swap() -> None:
    first_alone = aligned(replace(CORRESPONDENCE, first_frame_only=True))
    assert difference(run(first_alone, pair_call(0)), plain()) < 1e-5
    found = run(first_alone, pair_call(3))
    assert difference(found, run(aligned(CORRESPONDENCE), pair_call(3))) > 1e-3
    assert difference(found[P:], plain()[P:]) > 1e-3


@pytest.mark.parametrize(
    "config", [BOTH, replace(BOTH, after_attention=False), replace(BOTH, exclude_first=False)]
)
def test_originals_are_bit_for_bit_unchanged(config: AlignmentConfig) -> None:
    found = run(aligned(config), pair_call())
    assert torch.equal(found[:P], plain()[:P])
    assert difference(found[P:], plain()[P:]) > 1e-2


def test_a_twin_that_is_its_original_gives_the_same() -> None:
    latents, timestep, text = (torch.cat([x[:P], x[:P]]) for x in inputs())
    with torch.no_grad():
        found = aligned(BOTH)(latents, timestep, text, pair_call())
    assert difference(found[P:], found[:P]) < 1e-4


def test_pairs_do_not_mix() -> None:
    latents, timestep, text = inputs()
    model = aligned(BOTH)
    second = torch.tensor([1, P + 1])
    with torch.no_grad():
        alone = model(latents[second], timestep[second], text[second], pair_call(num_pairs=1))
    assert difference(alone, run(model, pair_call())[second]) < 1e-5


def test_gradient_of_frame_0s_prediction_is_zero() -> None:
    model, seen = aligned(BOTH), []

    def predict(*args: Any) -> Tensor:
        seen.append(model(*args))
        seen[0].retain_grad()
        return seen[0]

    select_trainable(model.model)
    latents, timestep, text = inputs()
    draw = draw_noise(
        latents.shape, DiffusionNoise("epsilon"), TimestepConfig(), torch.Generator().manual_seed(1)
    )
    losses = noise_losses(predict, latents, draw.noise_BFCHW, timestep[:P], text[:P], pair_call())
    total_loss(losses).backward()
    assert not seen[0].grad[:, 0].any()
    assert (seen[0].grad[:, 1:] != 0).all()


@pytest.mark.parametrize("first_frame_only", [False, True])
def test_detached_source_gets_no_gradient_from_the_twin(first_frame_only: bool) -> None:
    for detach_source in (False, True):
        model = aligned(replace(BOTH, detach_source=detach_source, first_frame_only=first_frame_only))
        latents, timestep, text = (x.clone() for x in inputs())
        latents.requires_grad_()
        model(latents, timestep, text, pair_call())[P:].square().sum().backward()
        assert bool(latents.grad[:P].any()) != detach_source
        assert latents.grad[P:].any()


@pytest.mark.parametrize("checkpointing", ["none", "all"])
def test_fp32_weights_learn_under_bf16_autocast(checkpointing: str) -> None:
    """Frame 0 is left out: with the way from it in so few channels, rounding chooses others of them."""
    config = replace(BOTH, exclude_first=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = learn(aligned(config, checkpointing), pair_call([0, 3, 4]))
    expected = unchecked(config)
    assert found.keys() == expected.keys()
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    cosines = [torch.cosine_similarity(found[n].flatten(), expected[n].flatten(), dim=0) for n in expected]
    assert min(cosines) > 0.5
    assert sum(cosines) / len(cosines) > 0.9


def test_a_copy_of_the_model_stands_alone() -> None:
    model = add_alignment(animated(), BOTH, checkpointing="all")
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    run(model, pair_call(0))
    assert_same(learn(twin, pair_call([0, 3, 4])), unchecked(BOTH))


# Messages.


def test_a_unet_without_cross_frame_attention_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has no cross-frame attention.*add_cross_frame_attention first"):
        add_alignment(add_motion(small_unet(), small_motion()), BOTH)


def test_a_second_alignment_is_refused() -> None:
    model = animated()
    add_alignment(model, BOTH)
    with pytest.raises(ValueError, match="learns from pairs already"):
        add_alignment(model, OFF)


def test_a_second_motion_is_still_refused() -> None:
    model = aligned(BOTH)
    with pytest.raises(ValueError, match="already has a motion, and two cannot run together"):
        add_motion(model.model.unet, small_motion())


def test_a_batch_that_is_not_the_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match=r"3 pairs are 6 videos, .* but there are 4"):
        run(aligned(BOTH), pair_call(num_pairs=3))


@pytest.mark.parametrize("swaps_L", [torch.ones(16, dtype=torch.bool), torch.ones(NUM_LAYERS)])
def test_a_draw_for_another_unet_is_refused(swaps_L: Tensor) -> None:
    with pytest.raises(ValueError, match="must say yes or no for each of the model's 6 attentions"):
        run(aligned(BOTH), VideoCall(num_pairs=P, swaps_L=swaps_L))
