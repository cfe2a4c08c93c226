"""Packed and padded batches, as collators of other libraries make them."""

import pytest
import torch

from longstate.interop import LongstateForCausalLM
from tests.interop.samples import draw, make, padded

transformers = pytest.importorskip("transformers", reason="needs the extra 'hf'")
wrap = LongstateForCausalLM.from_longstate


def test_packed_texts_of_the_collator():
    """DataCollatorWithFlattening: each text gives what it gives alone."""
    model = wrap(make("mamba").double())
    texts = [draw()[0, :5], draw()[0, 5:6], draw()[1, :11]]
    collate = transformers.DataCollatorWithFlattening()
    batch = collate([{"input_ids": text.tolist()} for text in texts])
    packed = model(**batch)
    single = [model(text[None], labels=text[None]) for text in texts]
    torch.testing.assert_close(packed.logits, torch.cat([one.logits for one in single], dim=1))
    summed = 4 * single[0].loss + 10 * single[2].loss
    torch.testing.assert_close(packed.loss, summed / 14)
    # labels without the collator's -100: the first token of a text is not predicted all the same
    torch.testing.assert_close(model(**{**batch, "labels": batch["input_ids"]}).loss, packed.loss)
    bounds = torch.tensor([0, *(len(text) for text in texts)]).cumsum(0).int()
    only_bounds = {k: v for k, v in batch.items() if k != "position_ids"}
    flash = {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": 9, "max_length_k": 9}
    torch.testing.assert_close(model(**only_bounds, **flash).loss, packed.loss)
    with pytest.raises(ValueError, match="cu_seq_lens_q must rise"):
        model(**only_bounds, cu_seq_lens_q=bounds[:-1])


@pytest.mark.parametrize("left_out", [(), ("position_ids",), ("position_ids", "cu_seq_lens_q")])
def test_every_sign_that_collators_give_of_packed_texts(left_out):
    """TRL packs with all of them at once; each alone is enough, also for the base model."""
    model = wrap(make("mamba").double())
    texts = [draw()[0, :5], draw()[0, 5:6], draw()[1, :11]]
    collate = transformers.DataCollatorWithFlattening(
        return_flash_attn_kwargs=True, return_seq_idx=True
    )
    batch = collate([{"input_ids": text.tolist()} for text in texts])
    assert {"position_ids", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "seq_idx"} <= set(
        batch
    )
    given = {k: v for k, v in batch.items() if k not in left_out}
    single = torch.cat([model(text[None]).logits for text in texts], dim=1)
    torch.testing.assert_close(model(**given).logits, single)
    inner = {k: v for k, v in given.items() if k != "labels"}
    hidden = torch.cat([model.model(text[None]).last_hidden_state for text in texts], dim=1)
    torch.testing.assert_close(model.model(**inner).last_hidden_state, hidden)


def test_numbers_of_packed_texts_in_a_batch():
    model = wrap(make("mamba").double())
    tokens = draw()[:2, :6]
    packed = model(tokens, seq_idx=torch.tensor([[0, 0, 0, 1, 1, 1], [7, 7, 7, 7, 7, 3]])).logits
    for row, cut in ((0, 3), (1, 5)):
        parts = [model(part[None]).logits[0] for part in (tokens[row, :cut], tokens[row, cut:])]
        torch.testing.assert_close(packed[row], torch.cat(parts))
    with pytest.raises(ValueError, match="seq_idx must be whole numbers of shape"):
        model(tokens, seq_idx=torch.zeros(1, 12, dtype=torch.int32))


@pytest.mark.parametrize("side", ["left", "right"])
def test_positions_of_a_padded_batch(side):
    model = wrap(make("mamba").double())
    tokens, mask = padded(side)
    positions = (mask.cumsum(1) - 1).masked_fill(mask == 0, 0)
    found = model(tokens, mask, position_ids=positions).logits
    torch.testing.assert_close(found, model(tokens, mask).logits)
