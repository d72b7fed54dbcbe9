"""Movements: what tells them apart, what does not, and the file of known ones."""

from pathlib import Path

import pytest
import torch

from actors.judge.movements import Movements, load_movements, movement, read_movements, write_movements
from actors.judge.reader import MIRRORED, actor_is_right, load_reader, read_joints
from actors.world.actions import ACTIONS
from actors.world.clips import clip_video, make_clip
from actors.world.looks import draw_look
from actors.world.motion import draw_motion


def test_a_movement_does_not_depend_on_place_size_or_side() -> None:
    joints_FJ2 = torch.randn(8, 15, 2).cumsum(dim=0)
    found = movement(joints_FJ2, 50.0)
    assert found.shape == (60,)
    torch.testing.assert_close(movement(2 * joints_FJ2 + 7, 100.0), found)
    mirrored_FJ2 = joints_FJ2[:, MIRRORED] * torch.tensor([-1, 1])
    torch.testing.assert_close(movement(mirrored_FJ2, 50.0), found)
    assert not torch.allclose(movement(2 * joints_FJ2, 50.0), found)
    assert not movement(joints_FJ2[:1].expand(8, -1, -1), 50.0).any()


def test_likeness_is_the_share_of_the_nearest_five() -> None:
    walk_FJ2 = torch.arange(8.0)[:, None, None].expand(-1, 15, 2)
    known = {
        name: torch.stack([movement(speed * walk_FJ2, 10.0) for speed in speeds])
        for name, speeds in {"walk": (1.0, 1.1, 0.9), "run": (2.0, 2.1, 2.2, 2.3)}.items()
    }
    movements = Movements(known)
    assert movements.likeness(walk_FJ2, 10.0, "walk") == pytest.approx(3 / 5)
    assert movements.likeness(walk_FJ2, 10.0, "run") == pytest.approx(2 / 5)
    assert movements.likeness(2.15 * walk_FJ2, 10.0, "run") == pytest.approx(4 / 5)
    assert movements.likeness(walk_FJ2, 10.0, "swim") == 0.0


def test_new_performances_are_recognised() -> None:
    reader, movements = load_reader(), load_movements()
    assert set(movements.known) == set(ACTIONS)
    shares = []
    for i, action in enumerate(ACTIONS):
        clip = make_clip(draw_motion(action, 77), draw_look(77 + i))
        joints_FJ2 = read_joints(reader, clip_video(clip), right_person=actor_is_right(clip))
        shares.append(movements.likeness(joints_FJ2, clip.height, action))
    assert sum(shares) / len(shares) > 0.65


def test_the_file_is_what_the_reader_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.judge.movements.ACTIONS", ACTIONS[:1])
    monkeypatch.setattr("actors.judge.movements._EACH", 2)
    found = read_movements(load_reader())
    torch.testing.assert_close(
        found.known[ACTIONS[0]], load_movements().known[ACTIONS[0]][:2], rtol=0, atol=1e-3
    )
    write_movements(found, tmp_path / "few.safetensors")
    kept = load_movements(tmp_path / "few.safetensors")
    assert torch.equal(kept.known[ACTIONS[0]], found.known[ACTIONS[0]])
