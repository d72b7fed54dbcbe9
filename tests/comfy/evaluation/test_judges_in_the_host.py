"""What needs scipy and torchvision, which come with ComfyUI."""

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image
from torch import Tensor
from torchvision.models.optical_flow import raft_large
from torchvision.transforms.functional import center_crop, resize, to_tensor

from flash_pack.flash_modules.evaluation.distances import frechet_distance
from flash_pack.flash_modules.evaluation.judges.find import CLIP, I3D_FLOW, I3D_RGB, RAFT, VIDEOMAE
from flash_pack.flash_modules.evaluation.judges.i3d import I3d, colours
from flash_pack.flash_modules.evaluation.judges.load import load_judges
from flash_pack.flash_modules.evaluation.judges.raft import RaftJudge
from flash_pack.flash_modules.evaluation.measures import FLOW, RGB, Standard, features, score


def scipys(one_NC: Tensor, other_MC: Tensor) -> float:
    """The distance as the packages of FID and FVD compute it."""
    a, b = one_NC.double().numpy(), other_MC.double().numpy()
    a_CC, b_CC = np.cov(a.T, bias=True), np.cov(b.T, bias=True)
    root_CC = scipy.linalg.sqrtm(a_CC @ b_CC)
    mean = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    return float(mean + np.trace(a_CC + b_CC) - 2 * np.trace(root_CC).real)


def exact(one_NC: Tensor, other_MC: Tensor) -> float:
    """The same by eigenvalues of a product that is symmetric: scipy's own, of the smaller matrix."""
    a = (one_NC - one_NC.mean(dim=0)).double().numpy() / len(one_NC) ** 0.5
    b = (other_MC - other_MC.mean(dim=0)).double().numpy() / len(other_MC) ** 0.5
    values = scipy.linalg.eigvalsh(a @ b.T @ b @ a.T)
    mean = (one_NC.mean(dim=0) - other_MC.mean(dim=0)).double().square().sum().item()
    return float(mean + np.square(a).sum() + np.square(b).sum() - 2 * np.sqrt(values.clip(0)).sum())


@pytest.mark.parametrize(("count", "other"), [(60, 90), (9, 12)])
def test_frechet_distance_equals_scipys(count: int, other: int) -> None:
    """With fewer videos than features the root of the singular matrix is off; its eigenvalues are not."""
    torch.manual_seed(0)
    one_NC, other_MC = torch.randn(count, 24).double(), 1.5 * torch.randn(other, 24).double() + 0.2
    found = frechet_distance(one_NC, other_MC)
    assert found == pytest.approx(exact(one_NC, other_MC), rel=1e-6)
    assert found == pytest.approx(scipys(one_NC, other_MC), rel=1e-6 if count > 24 else 1e-3)


def test_raft_from_a_file_gives_what_torchvision_gives(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = raft_large(weights=None).eval()
    path = tmp_path / "raft_large_C_T_SKHT_V2-ff5fadd5.pth"
    torch.save(network.state_dict(), path)
    video_FHWC = torch.rand(3, 128, 128, 3)
    seen_FCHW = (video_FHWC.permute(0, 3, 1, 2) * 255).round() / 127.5 - 1
    with torch.inference_mode():
        wanted_F2HW = network(seen_FCHW[:-1], seen_FCHW[1:])[-1]
    found_F2HW = RaftJudge(path, torch.device("cpu")).flow(video_FHWC, 128)
    assert wanted_F2HW.std() > 1e-3
    torch.testing.assert_close(found_F2HW, wanted_F2HW, atol=1e-3, rtol=1e-3)


def test_weights_of_another_network_are_no_raft(tmp_path: Path) -> None:
    path = tmp_path / "raft_large.pth"
    torch.save({"feature_encoder.convnormrelu.0.weight": torch.ones(3)}, path)
    with pytest.raises(ValueError, match=r"raft_large.pth is no file of this judge: .* weights are missing"):
        RaftJudge(path, torch.device("cpu"))


def test_i3d_sees_colours_as_torchvisions_path_through_pillow_gives_them() -> None:
    torch.manual_seed(0)
    bytes_HWC = torch.randint(0, 256, (240, 320, 3), dtype=torch.uint8)
    picture = Image.fromarray(bytes_HWC.numpy())
    wanted_CHW = to_tensor(center_crop(resize(picture, 224), [224, 224])) * 2 - 1
    found_CHW = colours(bytes_HWC[None].float() / 255)[0]
    assert ((found_CHW - wanted_CHW).abs() * 127.5).max() < 1.01


def test_cosine_flow_comes_from_files_through_both_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("flash_pack.flash_modules.evaluation.judges.find.HF_HUB_CACHE", str(tmp_path))
    torch.manual_seed(0)
    torch.save(raft_large(weights=None).state_dict(), tmp_path / RAFT.names[0])
    torch.save(I3d(2).state_dict(), tmp_path / I3D_FLOW.names[0])
    judges = load_judges(tmp_path, torch.device("cpu"))
    assert [note.partition(" is missing")[0] for note in judges.notes] == [
        CLIP.title,
        VIDEOMAE.title,
        I3D_RGB.title,
    ]
    video_FHWC = torch.rand(3, 32, 48, 3)
    own, other = (features(video, judges) for video in (video_FHWC, video_FHWC.flip(0)))
    standard = Standard(picture_1HWC=video_FHWC[:1], truth=own)
    assert score(video_FHWC, own, standard, judges)[FLOW.key] == pytest.approx(1.0, abs=1e-5)
    assert score(video_FHWC, other, standard, judges)[FLOW.key] < 1 - 1e-6
    assert RGB.key not in score(video_FHWC, own, standard, judges)
