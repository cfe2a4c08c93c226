"""Every family, with and without `accelerate_transformers`: the same results by other kernels."""

import pytest
import torch

from longstate.interop import accelerate_transformers
from longstate.testing import assert_within_reference_error
from tests.interop.families import (
    FAMILIES,
    MAMBA1,
    assert_same,
    build,
    counting_kernels,
    forbid_originals,
    left_padded,
    results,
    tokens,
)

EVERY = pytest.mark.parametrize("family", FAMILIES)
ONE_OF_EACH = pytest.mark.parametrize("family", ["mamba", "mamba2"])


def scan_of(family: str) -> str:
    return "selective_scan" if family in MAMBA1 else "chunk_scan"


@EVERY
@pytest.mark.parametrize("padded", [False, True])
def test_logits_and_all_gradients(family, padded):
    model = build(family)
    inputs = left_padded(tokens()) if padded else {"input_ids": tokens()}
    with counting_kernels() as none:
        expected = results(model, inputs)
    with accelerate_transformers(), counting_kernels() as ours:
        actual = results(model, inputs)
    assert_same(actual, expected)
    assert not none
    for op in (scan_of(family), scan_of(family) + "_backward", "short_conv", "short_conv_backward"):
        assert ours[op] >= 1, f"{op} did not run"


@EVERY
def test_bfloat16_is_no_worse(family):
    """Than transformers, both against the same weights in float32."""
    model = build(family, torch.bfloat16)
    inputs = {"input_ids": tokens()}
    plain = results(model, inputs)
    with accelerate_transformers(), counting_kernels() as ours:
        actual = results(model, inputs)
    assert ours[scan_of(family)]
    exact = results(model.float(), inputs)

    def gradients(of):
        """As one vector, every parameter's in units of its exact length."""
        return torch.cat([of[k].flatten() / exact[k].norm() for k in exact if k != "logits"])

    assert_within_reference_error(actual["logits"], exact["logits"], plain["logits"])
    error, reference_error = (
        torch.linalg.vector_norm(gradients(x) - gradients(exact)) for x in (actual, plain)
    )
    assert error <= 2 * reference_error


@EVERY
def test_generates_the_same_tokens(family, monkeypatch):
    """Drawn from a batch with padding; and no step runs on transformers' own functions."""
    model = build(family).eval()
    prompt = left_padded(tokens(length=11))

    def generate():
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return model.generate(
                **prompt, max_new_tokens=8, do_sample=True, output_logits=True,
                return_dict_in_generate=True,
            )  # fmt: skip

    expected = generate()
    forbid_originals(family, monkeypatch)
    with pytest.raises(AssertionError, match="own"):
        generate()
    with accelerate_transformers():
        actual = generate()
    assert torch.equal(actual.sequences, expected.sequences)
    for step, (ours, theirs) in enumerate(zip(actual.logits, expected.logits, strict=True)):
        assert_same({f"step {step}": ours}, {f"step {step}": theirs})


def pieces(model, ids, sizes):
    """Logits of a model that reads `ids` in pieces, and the cache it ends with."""
    name = "cache_params" if "cache_params" in type(model).forward.__code__.co_varnames else None
    cache, logits, begin = None, [], 0
    for size in sizes:
        here = torch.arange(begin, begin + size)[None].expand(ids.shape[0], -1)
        extra = {"position_ids": here} if name is None else {}
        out = model(
            ids[:, begin : begin + size], use_cache=True, **extra,
            **{name or "past_key_values": cache},
        )  # fmt: skip
        cache = out.cache_params if name else out.past_key_values
        logits.append(out.logits)
        begin += size
    return torch.cat(logits, 1)


@EVERY
def test_reading_in_pieces(family):
    """Is reading at once in Mamba-1 models, which in transformers forget the state; and for the
    others what it is in transformers."""
    model, ids = build(family).eval(), tokens()
    sizes = (13, 2, 1, 21)
    with torch.no_grad():
        whole, theirs = model(ids).logits, pieces(model, ids, sizes)
        with accelerate_transformers():
            ours = pieces(model, ids, sizes)
    assert_same({"logits": ours}, {"logits": whole if family in MAMBA1 else theirs})
    if family in MAMBA1:
        with pytest.raises(AssertionError, match="differs"):
            assert_same({"logits": theirs}, {"logits": whole})


@pytest.mark.parametrize("family", ["mamba", "falcon_mamba", "mamba2"])
def test_gradients_through_the_cache(family):
    model, ids = build(family), tokens(length=24)

    def gradients(logits):
        model.zero_grad()
        logits[:, -1].logsumexp(-1).sum().backward()
        return {k: p.grad for k, p in model.named_parameters()}

    with accelerate_transformers():
        whole = gradients(model(ids).logits)
        assert_same(gradients(pieces(model, ids, (11, 5, 8))), whole)


@ONE_OF_EACH
def test_training(family):
    """Five steps of an optimizer that began before the switch, with gradient checkpointing."""

    def train(model, optimizer, steps):
        losses = []
        for step in range(steps):
            ids = tokens(length=20 + step)
            loss = model(ids, labels=ids).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
        return torch.stack(losses)

    def losses(accelerate):
        model = build(family).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        before = train(model, optimizer, 1)
        model.activation_checkpointing_enable({"use_reentrant": False})
        if not accelerate:
            return torch.cat([before, train(model, optimizer, 4)])
        with accelerate_transformers(), counting_kernels() as ours:
            after = train(model, optimizer, 4)
        assert ours[scan_of(family)] == 2 * 4 * 2  # layers, steps, forward and once more
        return torch.cat([before, after])

    assert_same({"losses": losses(True)}, {"losses": losses(False)})


@pytest.mark.filterwarnings("ignore:.*checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("family", "targets"),
    [("mamba", ["in_proj", "x_proj"]), ("mamba", ["in_proj"]), ("bamba", ["in_proj", "q_proj"])],
)
def test_lora(family, targets):
    peft = pytest.importorskip("peft", reason="needs the extra 'test'")
    config = peft.LoraConfig(r=4, target_modules=targets, init_lora_weights=False)
    torch.manual_seed(3)
    model = peft.get_peft_model(build(family), config)
    ids = tokens()

    def everything():
        found = results(model, {"input_ids": ids})
        prompt = {"input_ids": ids[:, :9], "max_new_tokens": 4, "do_sample": False}
        logits = (
            model.eval().generate(**prompt, output_logits=True, return_dict_in_generate=True).logits
        )
        return found | {"decoded": torch.stack(logits)}

    expected = everything()
    assert any("lora_A" in name for name in expected)
    with accelerate_transformers(), counting_kernels() as ours:
        actual = everything()
    assert_same(actual, expected)
    assert ours[scan_of(family)]


@ONE_OF_EACH
def test_under_autocast(family):
    """A pass and a single token: no worse than transformers, both against float32."""
    model, ids = build(family).eval(), tokens()

    def logits(narrow):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            return model(ids).logits, one_token(model, ids)

    exact, plain = logits(False), logits(True)
    with accelerate_transformers():
        actual = logits(True)
    for three in zip(actual, exact, plain, strict=True):
        assert_within_reference_error(*three)


def one_token(model, ids):
    """Logits of the last token, after a prefill that no gradient goes through."""
    with torch.no_grad():
        cache = model(ids[:, :-1], use_cache=True).cache_params
    return model(ids[:, -1:], use_cache=True, cache_params=cache).logits


@ONE_OF_EACH
def test_a_single_token_where_gradients_are_asked_for(family):
    """Has them as in transformers: through all that comes after the last state, or an error. What
    comes before the first mixer is frozen, so that only its weights ask."""
    model, ids = build(family).eval(), tokens()
    model.backbone.embeddings.requires_grad_(False)
    model.backbone.layers[0].norm.requires_grad_(False)

    def gradient():
        logits = one_token(model, ids)
        last = next(p for k, p in model.named_parameters() if k.endswith("1.mixer.out_proj.weight"))
        (grad,) = torch.autograd.grad(logits.logsumexp(-1).sum(), last, retain_graph=True)
        with pytest.raises(RuntimeError, match="inplace"):
            logits.sum().backward()
        return {"logits": logits, "gradient": grad}

    expected = gradient()
    with accelerate_transformers():
        assert_same(gradient(), expected)


@pytest.mark.parametrize("family", ["mamba", "jamba", "mamba2"])
def test_hooks_see_every_token(family):
    model, seen = build(family).eval(), []
    for module in model.modules():
        if hasattr(module, "out_proj"):
            module.out_proj.register_forward_hook(lambda *_: seen.append("out"))
            module.in_proj.register_forward_pre_hook(lambda *_: seen.append("in"))

    def generate():
        seen.clear()
        model.generate(tokens(), max_new_tokens=5, do_sample=False)
        return list(seen)

    expected = generate()
    assert expected
    with accelerate_transformers():
        assert generate() == expected


class Doubled(torch.nn.Linear):
    """A layer with more than a weight."""

    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize("name", ["in_proj", "x_proj", "out_proj"])
@torch.no_grad()
def test_other_kinds_of_layers_are_called(name):
    model, ids = build("mamba").eval(), tokens()
    getattr(model.backbone.layers[0].mixer, name).__class__ = Doubled
    expected = one_token(model, ids)
    with accelerate_transformers():
        assert_same({"logits": one_token(model, ids)}, {"logits": expected})


@torch.no_grad()
def test_a_cache_that_records_its_past():
    """Which keeps all inputs of the convolution, so that tokens can be taken back."""
    model, ids = build("mamba").eval(), tokens()

    def logits():
        cache = model(ids[:, :9], use_cache=True).cache_params
        for layer in cache.layers:
            layer.activate_past_recording()
        found = model(ids[:, 9:10], use_cache=True, cache_params=cache).logits
        return {"logits": found, "taps": cache.layers[0].conv_states[0]}

    expected = logits()
    assert expected["taps"].shape[-1] == 5
    with accelerate_transformers():
        assert_same(logits(), expected)
