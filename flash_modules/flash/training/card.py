"""What the card of a trained action or decoder says beside its settings."""

from ...files.model_card import NOT_FOR, card_entry

INTENDED_USE = (
    "Animating pictures that one has the right to use, with the action of the clips it was learned from. "
    + NOT_FOR
)
_LIMITS = (
    "Interactions of people with objects may be wrong, above all with several objects (FLASH, A5).",
    "Pictures whose beginning differs much from the clips' (size of the motion, pose, age of the person) may "
    "be animated badly (FLASH, A5).",
    "It was learned from few clips: what is rare in them, other views or body shapes, may fail.",
)
_DECODER_LIMITS = (
    "It brings back details that the picture has; what comes into view later has none.",
    "It fits the VAE that it was trained with, and no other.",
)


def action_card() -> dict[str, str]:
    """The header's entry for an action (FLASH, arXiv:2503.00276, A5 and A6)."""
    return card_entry(intended_use=INTENDED_USE, limits=_LIMITS)


def decoder_card() -> dict[str, str]:
    """The header's entry for a detail decoder."""
    return card_entry(
        intended_use="Decoding videos of FLASH with the details of their pictures. " + INTENDED_USE,
        limits=_DECODER_LIMITS,
    )
