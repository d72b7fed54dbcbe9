"""What the cards of FlexiAct's files say beside their settings."""

from ..files.model_card import NOT_FOR, card_entry

_ACTION_LIMITS = (
    "It was learned from one clip. Not every action is learned so: on a tiny base one of two was "
    "(docs/measured.md); with CogVideoX's own weights nothing was measured.",
    "Prompts must be like the clip's caption, of the picture that performs.",
    "It performs on CogVideoX-5b-I2V alone.",
)
_ADAPTER_LIMITS = (
    "Pictures unlike the clips that it was learned from may keep less of their look; with CogVideoX's own "
    "weights nothing was measured.",
    "It holds no action, and works on CogVideoX-5b-I2V alone.",
)


def transfer_card() -> dict[str, str]:
    """The header's entry for an action that was learned from one clip."""
    use = "Letting pictures that one has the right to use perform the action of the clip it was learned from."
    return card_entry(intended_use=f"{use} {NOT_FOR}", limits=_ACTION_LIMITS)


def ref_adapter_card() -> dict[str, str]:
    """The header's entry for a RefAdapter."""
    use = "Keeping the look of a picture that one has the right to use, while it performs an action."
    return card_entry(intended_use=f"{use} {NOT_FOR}", limits=_ADAPTER_LIMITS)
