"""`python -m actors pretrain`: make the small base, from rendering clips to files for the product.

It may be killed and started again at any time; a longer limit continues a stage that was over.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from tqdm import tqdm

from ..world.actions import HELD_OUT_ACTIONS
from ..world.clips import WORDS
from ..world.looks import HELD_OUT_SCENE, HELD_OUT_STYLE, HELD_OUT_TEXTURE
from .diffusion import DiffusionConfig, train_clips, train_pairs, train_pictures
from .export import export
from .latents import Dataset, encode_pool
from .pool import ClipPool, ClipSource, actor_clip, make_pool
from .tokenizer import make_tokenizer, read_tokenizer
from .training import Limit
from .vae import VAEConfig, finished_vae, train_vae

MINUTES = {"vae": 120, "pictures": 60, "pairs": 45, "clips": 180}
"""The stages that train, and how long."""
_CPU = torch.device("cpu")
_FILES_OF_TOKENIZER = ("tokenizer_config.json", "vocab.json", "merges.txt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pretrain`."""
    parser.set_defaults(run=pretrain)
    parser.add_argument("--out", type=Path, default=Path("out/base"), help="default %(default)s")
    parser.add_argument("--stage", choices=[*STAGES], help="only this one (default: all, in this order)")
    for stage, minutes in MINUTES.items():
        parser.add_argument(
            f"--minutes-{stage}", type=float, default=minutes, help="of training (default %(default)s)"
        )
    parser.add_argument("--clips", type=int, default=10000, help="size of the pool (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default %(default)s")
    parser.add_argument("--device", type=torch.device, default=_CPU, help="default %(default)s")
    parser.add_argument(
        "--batch", type=int, help="so many times as large batches (default: 16 on a GPU, 1 elsewhere)"
    )
    parser.add_argument("--steps", type=int, help="of each training stage, in place of minutes: for a trial")


def pretrain(args: argparse.Namespace) -> None:
    """Run the stages that the arguments name."""
    torch.set_num_threads(args.threads)
    limits = {
        stage: Limit(seconds=60 * getattr(args, f"minutes_{stage}"), steps=args.steps) for stage in MINUTES
    }
    base = Pretraining(
        out=args.out,
        limits=limits,
        num_clips=args.clips,
        seed=args.seed,
        workers=args.threads,
        device=args.device,
        batch=args.batch or (16 if args.device.type == "cuda" else 1),
    )
    for stage in [args.stage] if args.stage else STAGES:
        STAGES[stage](base)


_HELD_OUT = {
    "held_out_actions": list(HELD_OUT_ACTIONS),
    "held_out_looks": [f"{HELD_OUT_STYLE} style", f"{HELD_OUT_TEXTURE} shirt", HELD_OUT_SCENE],
}


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """All stages of one small base, each on what the ones before left in `out`."""

    out: Path
    limits: dict[str, Limit]
    num_clips: int
    seed: int
    workers: int = 2
    device: torch.device = _CPU
    batch: int = 1
    """Factor of the sizes of batches."""
    source: ClipSource = actor_clip
    words: Sequence[str] = WORDS

    @cached_property
    def pool(self) -> ClipPool:
        return ClipPool(self.out / "pool", self.num_clips)

    @cached_property
    def data(self) -> Dataset:
        """Latents of the trained VAE and tokens of the captions, made where they are missing."""
        vae, folder = finished_vae(self.out, self.pool, self.device)
        latents_KFCHW = encode_pool(self.out / "latents" / folder.name, self.pool, vae).to(self.device)
        where = self.out / "tokenizer"
        made = all((where / name).is_file() for name in _FILES_OF_TOKENIZER)
        tokenizer = read_tokenizer(where) if made else make_tokenizer(where, self.words)
        figures_KFHW = self.pool.figures_KFHW.to(self.device)
        return Dataset(latents_KFCHW, figures_KFHW, self.pool.captions, tokenizer)

    @property
    def _diffusion(self) -> DiffusionConfig:
        return DiffusionConfig().times(self.batch)

    def make_pool(self) -> None:
        make_pool(self.out / "pool", self.source, self.num_clips, self.seed, self.workers)

    def train_vae(self) -> None:
        config = VAEConfig(batch=self.batch * VAEConfig.batch)
        limit = self.limits["vae"]
        train_vae(self.out, self.pool, limit, seed=self.seed, config=config, device=self.device)

    def make_latents(self) -> None:
        spread = self.data.latents_KFCHW.float().std()
        tqdm.write(f"{len(self.data.captions)} clips as latents, standard deviation {spread:.3f}")

    def train_pictures(self) -> None:
        limit, config = self.limits["pictures"], self._diffusion
        train_pictures(self.out, self.data, limit, seed=self.seed, config=config)

    def train_pairs(self) -> None:
        limit, config = self.limits["pairs"], self._diffusion
        train_pairs(self.out, self.data, limit, seed=self.seed, config=config)

    def train_clips(self) -> None:
        limit, config = self.limits["clips"], self._diffusion
        train_clips(self.out, self.data, limit, seed=self.seed, config=config)

    def export(self) -> None:
        _, vae_folder = finished_vae(self.out, self.pool)
        about = {"script": "python -m actors pretrain", "seed": self.seed, **_HELD_OUT}
        tqdm.write(f"Wrote {export(self.out, self.data, vae_folder, MINUTES, about)}")


STAGES: dict[str, Callable[[Pretraining], None]] = {
    "pool": Pretraining.make_pool,
    "vae": Pretraining.train_vae,
    "latents": Pretraining.make_latents,
    "pictures": Pretraining.train_pictures,
    "pairs": Pretraining.train_pairs,
    "clips": Pretraining.train_clips,
    "export": Pretraining.export,
}
