import pytest
import torch
import torch.nn.functional as nnf

from flash_pack.flash_modules.evaluation.looks import leak, looks, reference_likeness
from flash_pack.tests.core.made_videos import DOWN, noisy, scene, shuffled, still


def test_leak_is_0_with_the_pictures_look_and_1_with_a_training_clips() -> None:
    reference_1HWC, training_1HWC = scene()[:1], scene(look=9)[:1]
    own, training = looks(reference_1HWC), looks(training_1HWC)
    assert leak(looks(still(scene())), own, training) == 0.0
    assert leak(looks(still(scene(look=9))), own, training) == pytest.approx(1.0, abs=1e-6)
    assert leak(torch.cat([training, own]), own, training) == 0.0  # frame 0 does not count


def test_leak_hardly_sees_motion_and_grows_with_the_training_look() -> None:
    reference, training = looks(scene()[:1]), looks(scene(look=9)[:1])
    mixed_FHWC = 0.5 * scene() + 0.5 * scene(look=9)
    values = [leak(looks(video), reference, training) for video in (scene(), mixed_FHWC, scene(look=9))]
    assert values[0] < 0.3
    assert values[0] < values[1] < values[2]
    assert leak(looks(scene(DOWN)), reference, training) < 0.3


def test_leak_is_towards_the_nearest_of_several_training_looks() -> None:
    reference = looks(scene()[:1])
    near, far = looks(scene(look=9)[:1]), looks(scene(look=21)[:1] * 0.5)
    video = looks(scene(look=9))
    assert leak(video, reference, [*far, *near]) == leak(video, reference, near) > leak(video, reference, far)


def test_looks_of_other_sizes_can_be_compared() -> None:
    large, larger = (
        nnf.interpolate(scene()[:1].permute(0, 3, 1, 2), scale_factor=scale, mode="bilinear")
        for scale in (2, 6)
    )
    own, again = (looks(picture.permute(0, 2, 3, 1)) for picture in (large, larger))
    assert leak(torch.cat([own, again]), own, looks(scene(look=9)[:1])) < 0.1


def test_likeness_falls_with_another_look_and_noise_and_not_with_order() -> None:
    reference_1HWC = scene()[:1]
    values = {
        name: reference_likeness(video, reference_1HWC).mean().item()
        for name, video in {
            "itself": scene(),
            "shuffled": shuffled(scene()),
            "noisy": noisy(scene()),
            "noisier": noisy(scene(), 0.2),
            "other look": scene(look=9),
        }.items()
    }
    assert values["itself"] == pytest.approx(values["shuffled"], abs=1e-6)
    assert values["itself"] > values["noisy"] > values["noisier"]
    assert values["itself"] > values["other look"]


def test_a_leak_without_training_clips_is_refused() -> None:
    with pytest.raises(ValueError, match="looks of training clips, but there are none"):
        leak(looks(scene()), looks(scene()[:1]), [])
