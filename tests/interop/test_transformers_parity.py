"""Our models against `transformers`, on random weights: prefill, prefill in pieces, decoding.

In three places `transformers` 5.23 is wrong, and ours is compared with its own unpadded single
pass: prefill in pieces of the Mamba-1 family begins from a zero state; padding on the right enters
the state; decoding ignores Mamba-2's limits of the step.
"""

import pytest
import safetensors.torch
import torch
from torch import nn

from longstate.interop import load_language_model, save_language_model
from tests.golden import assert_parity
from tests.interop.samples import draw, make, same

transformers = pytest.importorskip("transformers")

BASE = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 3, "state_size": 5}
HEADS = {"num_heads": 6, "head_dim": 8, "n_groups": 2, "chunk_size": 16}
CASES = {
    "mamba": ("Mamba", {}),
    "mamba-options": (
        "Mamba",
        {"use_bias": True, "use_conv_bias": False, "time_step_rank": 3, "conv_kernel": 3}
        | {"tie_word_embeddings": False, "layer_norm_epsilon": 1e-3, "expand": 1},
    ),
    "mamba2": ("Mamba2", HEADS),
    "mamba2-options": (
        "Mamba2",
        HEADS
        | {"use_bias": True, "use_conv_bias": False, "time_step_limit": (0.3, 0.6)}
        | {"tie_word_embeddings": True, "layer_norm_epsilon": 1e-3, "n_groups": 1},
    ),
    "falcon": ("FalconMamba", {}),
    "falcon-options": (
        "FalconMamba",
        {"mixer_rms_eps": 1e-2, "use_bias": True, "tie_word_embeddings": False}
        | {"intermediate_size": 72, "expand": 16},
    ),
}


@pytest.fixture(autouse=True)
def quiet():
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    transformers.logging.set_verbosity(before)


def theirs(name, **changes):
    family, options = CASES[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**BASE, **options, **changes})
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    for p in model.parameters():
        nn.init.normal_(p, p.mean().item(), 0.3)
    return model


@pytest.fixture(params=CASES)
def pair(request, tmp_path):
    model = theirs(request.param)
    model.save_pretrained(tmp_path / "m")
    return model, load_language_model(tmp_path / "m")


@pytest.mark.filterwarnings("ignore")
class TestParity:
    def test_prefill_and_decoding(self, pair):
        model, mine = pair
        tokens = draw()
        with torch.no_grad():
            expected = model(tokens, use_cache=True)
            logits, state = mine(tokens)
            assert_parity(logits, expected.logits)
            last, _ = mine.prefill(tokens)
            assert_parity(last, expected.logits[:, -1])
            if getattr(model.config, "time_step_limit", (0,))[0]:
                return  # their steps ignore the limits
            cache = expected.cache_params
            for t in range(8):
                token = tokens[:, t]
                expected = model(token[:, None], cache_params=cache, use_cache=True).logits
                logits, state = mine.step(token, state)
                assert_parity(logits, expected[:, 0])

    def test_pieces_steps_and_padding_equal_a_single_pass_of_transformers(self, pair):
        model, mine = pair
        tokens = draw()
        place = torch.arange(45)
        with torch.no_grad():
            expected = model(tokens).logits
            pieces, state = [], None
            for piece in tokens.tensor_split([9, 10, 25], dim=1):
                y, state = mine(piece, state)
                pieces.append(y)
            assert_parity(torch.cat(pieces, 1), expected)
            state, steps = mine.init_state(2), []
            for t in range(37):
                y, state = mine.step(tokens[:, t], state)
                steps.append(y)
            assert_parity(torch.stack(steps, 1), expected)
            for start in (0, 8):  # padding on the right, on the left
                mask = ((place >= start) & (place < start + 37)).expand(2, -1)
                padded = torch.full((2, 45), 7)
                padded[mask] = tokens.flatten()
                y, _ = mine(padded, mask=mask)
                assert_parity(y[mask].view_as(expected), expected)

    def test_transformers_reads_our_checkpoints(self, pair, tmp_path):
        model, mine = pair
        save_language_model(mine, tmp_path / "again")
        auto = transformers.AutoModelForCausalLM
        again, told = auto.from_pretrained(tmp_path / "again", output_loading_info=True)
        assert type(again) is type(model)
        assert not any(told[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        same(model, again)
        with torch.no_grad():  # but for the chunk's size, which is no part of the model
            assert_parity(again.eval()(draw()).logits, model(draw()).logits)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings"):
            assert getattr(again.config, name) == getattr(model.config, name)

    def test_narrow_weights(self, pair, tmp_path):
        model, mine = pair
        model.to(torch.bfloat16).save_pretrained(tmp_path / "b")
        narrow = load_language_model(tmp_path / "b")
        assert {p.dtype for p in narrow.parameters()} == {torch.bfloat16}
        with torch.no_grad():
            exact, _ = mine.double()(draw())
            ours, theirs_ = narrow(draw())[0], model(draw()).logits
        assert ours.dtype == torch.float32
        error = (ours - exact).abs().mean()
        assert error < 1.5 * (theirs_ - exact).abs().mean()


@pytest.mark.filterwarnings("ignore")
def test_shards_and_pickles_of_transformers_are_read(tmp_path):
    model = theirs("mamba2")
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="20KB")
    assert (tmp_path / "many" / "model.safetensors.index.json").exists()
    whole = load_language_model(tmp_path / "one")
    same(whole, load_language_model(tmp_path / "many"))
    tensors = safetensors.torch.load_file(tmp_path / "one" / "model.safetensors")
    (tmp_path / "one" / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "one" / "pytorch_model.bin")
    same(whole, load_language_model(tmp_path / "one"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["mamba", "mamba2", "falconmamba"])
def test_a_padded_vocabulary_gives_the_logits_of_transformers(name, tmp_path):
    mine = make(name, vocab_multiple=16, bos_token=None, eos_tokens=(3, 4))
    save_language_model(mine, tmp_path / "m")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m").eval()
    with torch.no_grad():
        logits = model(draw()).logits
        assert logits.shape[-1] == 64
        assert_parity(mine(draw())[0], logits[..., :50])
    assert model.config.eos_token_id == [3, 4]
    assert model.config.bos_token_id is None
