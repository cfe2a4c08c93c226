"""Convert masks, positions and labels of transformers to arguments of a `LanguageModel`.

Axes: b batch, t time, d channels.
"""

import torch
from torch import Tensor

from longstate.errors import InputError


def the_input(input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
    """The one of the two that was given.

    Raises:
        InputError: both or neither were given.
    """
    if input_ids is not None and inputs_embeds is None:
        return input_ids
    if inputs_embeds is not None and input_ids is None:
        return inputs_embeds
    raise InputError("a longstate model reads either input_ids or inputs_embeds; give one of them")


def existing_tokens(given: Tensor | None, inputs: Tensor, before: int) -> Tensor | None:
    """A bool tensor (b, t), False at padding; None where there is none.

    Args:
        given: attention_mask, (b, t), or (b, before + t).
        inputs: tokens (b, t), or vectors (b, t, d).
        before: number of tokens that were read earlier.
    """
    if given is None or inputs.dim() < 2:
        return None
    b, t = inputs.shape[:2]
    if tuple(given.shape) not in ((b, t), (b, before + t)):
        raise InputError(
            f"attention_mask must have shape {(b, t)}"
            + (f", or {(b, before + t)} with the past" if before else "")
            + f"; got {tuple(given.shape)}"
        )
    mask = given[:, -t:]
    exists = mask != 0
    if not _can_look(given):
        return exists
    if not bool((exists == mask).all()):
        raise InputError("attention_mask must hold 0 and 1 only; it says which tokens exist")
    return None if bool(exists.all()) else exists


def first_tokens(position_ids: Tensor | None, inputs: Tensor, mask: Tensor | None) -> Tensor | None:
    """A bool tensor (b, t), True where a text begins: where the position is 0.

    Raises:
        InputError: positions do not increase by 1 from 0, so that it is unknown where texts begin.
    """
    if position_ids is None:
        return None
    b, t = inputs.shape[:2]
    if tuple(position_ids.shape) not in ((b, t), (1, t)) or position_ids.is_floating_point():
        raise InputError(
            f"position_ids must be whole numbers of shape {(b, t)}; got {position_ids.dtype} of "
            f"shape {tuple(position_ids.shape)}"
        )
    positions = position_ids.expand(b, t)
    if _can_look(positions):
        rows = (
            [positions]
            if mask is None
            else [p[m][None] for p, m in zip(positions, mask, strict=True)]
        )
        for row in rows:
            wrong = (row[:, 1:] != row[:, :-1] + 1) & (row[:, 1:] != 0)
            if bool(wrong.any()):
                raise InputError(
                    "position_ids must increase by 1 within a text and be 0 where one begins; got "
                    f"{int(row[:, 1:][wrong][0])} after {int(row[:, :-1][wrong][0])}"
                )
    begins = positions == 0
    return begins if mask is None else begins & mask


def packed_positions(
    position_ids: Tensor | None,
    cu_seq_lens: Tensor | None,
    seq_idx: Tensor | None,
    inputs: Tensor,
) -> Tensor | None:
    """`position_ids`; if there are none, those of packed texts of which the bounds are known.

    Args:
        position_ids (b, t): as given.
        cu_seq_lens (n + 1): where each text of one row begins, and the end, as collators for
            flash-attention give them.
        seq_idx (b, t): the number of the text that a token belongs to.
        inputs: tokens (b, t), or vectors (b, t, d).

    Raises:
        InputError: the bounds are not those of one row, or the numbers are not one for each token.
    """
    if position_ids is not None or (cu_seq_lens is None and seq_idx is None):
        return position_ids
    b, t = inputs.shape[:2]
    if cu_seq_lens is None:
        assert seq_idx is not None
        if tuple(seq_idx.shape) != (b, t) or seq_idx.is_floating_point():
            raise InputError(
                f"seq_idx must be whole numbers of shape {(b, t)}; got {seq_idx.dtype} of shape "
                f"{tuple(seq_idx.shape)}"
            )
        places = torch.arange(t, device=seq_idx.device).expand(b, t)
        begins = torch.ones_like(seq_idx, dtype=torch.bool)
        begins[:, 1:] = seq_idx[:, 1:] != seq_idx[:, :-1]
        return places - torch.where(begins, places, 0).cummax(dim=1).values
    lengths = cu_seq_lens.diff()
    fits = b == 1 and cu_seq_lens.dim() == 1 and len(lengths) > 0
    if not fits or bool((lengths < 0).any()) or cu_seq_lens[[0, -1]].tolist() != [0, t]:
        raise InputError(
            f"cu_seq_lens_q must rise from 0 to {t}, for a batch of one row; got "
            f"{cu_seq_lens.tolist()} and a batch of {b}"
        )
    texts = [torch.arange(n, device=inputs.device) for n in lengths.tolist()]
    return torch.cat(texts)[None]


def predicted_labels(
    labels: Tensor, inputs: Tensor, mask: Tensor | None, reset: Tensor | None
) -> Tensor:
    """Labels (b, t), with -100 for tokens that are not predicted from the previous token.

    Args:
        labels (b, t): as given.
        inputs: tokens (b, t), or vectors (b, t, d).
        mask (b, t): False at padding.
        reset (b, t): True where a text begins.
    """
    if labels.shape != inputs.shape[:2]:
        raise InputError(
            f"labels must have the shape of input_ids, {tuple(inputs.shape[:2])}; got "
            f"{tuple(labels.shape)}"
        )
    if mask is not None:
        known = mask.clone()
        known[:, 1:] &= mask[:, :-1]
        labels = labels.masked_fill(~known, -100)
    return labels if reset is None else labels.masked_fill(reset, -100)


def last_of_each_row(x: Tensor, mask: Tensor | None) -> Tensor:
    """x (b, 1, d) at the last unmasked token in each row of x (b, t, d).

    Raises:
        InputError: a row has no unmasked token.
    """
    if mask is None:
        return x[:, -1:]
    if _can_look(mask) and not bool(mask.any(dim=1).all()):
        row = int(mask.any(dim=1).int().argmin())
        raise InputError(
            f"row {row} of attention_mask is all 0: without a token there is no next one"
        )
    places = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, places, 0).amax(dim=1)
    return x[torch.arange(len(x), device=x.device), last][:, None]


def _can_look(x: Tensor) -> bool:
    """Whether values can be read: not in a compiled graph, and not of a meta tensor."""
    return not torch.compiler.is_compiling() and not x.is_meta
