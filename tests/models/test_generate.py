"""Generation: drawn tokens, ends, and independence of the rows."""

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from longstate.errors import InputError
from longstate.models import LanguageModel, LanguageSpec, Piece, generate

PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 1, 1, 2], [3, 3]]
OPTIONS = {"mamba": {"d_state": 3}, "mamba2": {"d_state": 3, "d_head": 4}, "s4d": {"d_state": 4}}


def make(*layers, vocabulary=40, **changes):
    torch.manual_seed(0)
    options = {name: OPTIONS[name] for name in layers}
    spec = LanguageSpec(vocabulary, 8, layers, options, tie=False, **changes)
    model = LanguageModel(spec).eval()
    for weight in (model.embedding.weight, model.head.weight):
        nn.init.normal_(weight)
    return model


@pytest.fixture(scope="module")
def model():
    return make("mamba", "s4d")


def tokens(results):
    return [r.tokens for r in results]


def by_hand(model, prompt, count):
    """The most likely token, computed from the whole text in each step."""
    text = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            text.append(int(model(torch.tensor([text]))[0][0, -1].argmax()))
    return text[len(prompt) :]


@pytest.mark.parametrize("layers", [("mamba", "s4d"), ("mamba2",)], ids="-".join)
def test_greedy_takes_the_most_likely_token(layers):
    model = make(*layers)
    results = generate(model, PROMPTS, max_tokens=12)
    assert tokens(results) == [by_hand(model, p, 12) for p in PROMPTS]
    assert {r.ended for r in results} == {"length"}


@pytest.mark.parametrize("layers", [("mamba", "s4d"), ("mamba2",)], ids="-".join)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 1.0},
        {"temperature": 0.7, "top_k": 7},
        {"temperature": 1.3, "top_p": 0.8, "repetition_penalty": 1.2},
    ],
)
def test_a_row_in_a_batch_equals_the_row_alone(layers, settings):
    model = make(*layers)
    # rows end at different times: a stop token that some meet
    common = {"max_tokens": 40, "stop_tokens": [11, 12, 13], **settings}
    together = generate(model, PROMPTS, seed=5, **common)
    assert len({len(r.tokens) for r in together}) > 1 or not settings
    for i, prompt in enumerate(PROMPTS):
        assert generate(model, [prompt], seed=5 + i, **common) == [together[i]]
        assert generate(model, [prompt], seed=[5 + i], **common) == [together[i]]
    back = generate(model, PROMPTS[::-1], seed=[8, 7, 6, 5], **common)
    assert back == together[::-1]


def test_seeds(model):
    def run(seed):
        return tokens(generate(model, [[1], [1]], temperature=1.0, max_tokens=20, seed=seed))

    assert run(3) == run(3)
    assert run(3) != run(4)
    assert run(3)[0] != run(3)[1]
    assert run([3, 3])[0] == run([3, 3])[1] == run(3)[0]


def test_a_state_before_the_prompts(model):
    prefix = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1]])
    _, state = model.prefill(prefix)
    whole = [[*row.tolist(), 7, 8] for row in prefix]
    assert generate(model, [[7, 8]] * 2, state=state, max_tokens=9) == generate(
        model, whole, max_tokens=9
    )
    with pytest.raises(InputError, match="state must have one row for each of 1 prompts; got 2"):
        generate(model, [[7]], state=state)


def test_every_prompt_continues_from_its_own_state(model):
    _, state = model.prefill(torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1]]))
    state = tree_map(lambda s: 100 * s.detach(), state)  # so large that it decides what is drawn
    options = {"max_tokens": 30, "temperature": 1.0}
    together = generate(model, [[7, 8]] * 2, state=state, seed=[3, 3], **options)
    assert together[0].tokens != together[1].tokens
    for i in range(2):
        own = tree_map(lambda s, i=i: s[i : i + 1], state)
        assert generate(model, [[7, 8]], state=own, seed=3, **options) == [together[i]]


def test_long_prompts_are_read_in_pieces(model, monkeypatch):
    seen = []
    prefill = model.prefill
    monkeypatch.setattr(
        model, "prefill", lambda tokens, *a: seen.append(tokens.shape[1]) or prefill(tokens, *a)
    )
    prompt = torch.randint(40, (4500,))
    assert generate(model, [prompt], max_tokens=2)
    assert seen == [2048, 2048, 404]


def test_pieces_of_a_prompt_are_the_prompt(model, monkeypatch):
    whole = generate(model, PROMPTS, max_tokens=30, temperature=1.0)
    for size in (1, 2, 4):
        monkeypatch.setattr("longstate.models._generate.PIECE", size)
        assert generate(model, PROMPTS, max_tokens=30, temperature=1.0) == whole


def test_padding_tokens_of_the_vocabulary_are_never_drawn():
    model = make("mamba", vocabulary=9, vocab_multiple=64)
    with torch.no_grad():
        model.head.weight[9:] = 100 * model.head.weight[:1]
    for settings in ({}, {"temperature": 5.0}):
        (result,) = generate(model, [[1]], max_tokens=200, **settings)
        assert max(result.tokens) < 9


def test_stop_tokens_end_a_row_and_are_not_part_of_it(model):
    (free,) = generate(model, [[1]], max_tokens=30, temperature=1.0)
    stop = free.tokens[9]
    cut = free.tokens.index(stop)
    (result,) = generate(model, [[1]], max_tokens=30, temperature=1.0, stop_tokens=[stop])
    assert (result.tokens, result.ended) == (free.tokens[:cut], "token")
    named = make("mamba", "s4d", eos_tokens=(stop,))
    assert generate(named, [[1]], max_tokens=30, temperature=1.0) == [result]
    assert generate(named, [[1]], max_tokens=30, temperature=1.0, stop_tokens=[]) == [free]


def letters(numbers):
    return "".join(chr(ord("a") + n % 26) for n in numbers)


def test_stop_strings_end_a_row_and_its_text(model):
    common = {"max_tokens": 30, "temperature": 1.0, "decode": letters}
    (free,) = generate(model, [[1]], **common)
    assert free.text == letters(free.tokens)
    stop = free.text[8:11]
    cut = free.text.index(stop)
    pieces = []
    (result,) = generate(
        model, [[1]], stop_strings=["zzzz", stop], on_piece=pieces.append, **common
    )
    assert (result.text, result.ended) == (free.text[:cut], "text")
    assert result.tokens == free.tokens[: cut + 3]
    assert "".join(p.text for p in pieces) == result.text
    assert [p.token for p in pieces] == result.tokens
    assert [p.ended for p in pieces] == [None] * (cut + 2) + ["text"]


def test_a_possible_stop_string_is_returned_at_the_end(model):
    common = {"max_tokens": 30, "temperature": 1.0, "decode": letters}
    (free,) = generate(model, [[1]], **common)
    pieces = []
    (result,) = generate(
        model, [[1]], stop_strings=[free.text[-2:] + "#"], on_piece=pieces.append, **common
    )
    assert (result.text, result.ended) == (free.text, "length")
    assert pieces[-1].text.endswith(free.text[-2:])


def test_pieces_are_yielded_during_generation(model):
    pieces = []
    results = generate(
        model, PROMPTS, max_tokens=5, temperature=1.0, on_piece=pieces.append, decode=letters
    )
    assert [p.row for p in pieces] == [0, 1, 2, 3] * 5
    for i, result in enumerate(results):
        own = [p for p in pieces if p.row == i]
        assert [p.token for p in own] == result.tokens
        assert "".join(p.text for p in own) == result.text
    (piece,) = {type(p) for p in pieces}
    assert piece is Piece


def test_a_stopped_callback_stops_generation(model):
    def enough(piece):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(model, [[1]], on_piece=enough)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts": []}, "at least one"),
        ({"prompts": "abc"}, "list of lists of tokens"),
        ({"prompts": [[]]}, "prompt 0 is empty"),
        ({"prompts": [[1], []]}, "prompt 1 is empty"),
        ({"prompts": [1, 2]}, "prompt 0 must be a list of tokens"),
        ({"prompts": [torch.ones(2)]}, "whole numbers; got"),
        ({"prompts": [torch.tensor(2)]}, "prompt 0 must be a list of tokens"),
        ({"prompts": [[1.5]]}, "whole numbers; got"),
        ({"prompts": [["a"]]}, "whole numbers; got"),
        ({"prompts": [[1], [40]]}, "prompt 1 holds token 40; the vocabulary has 0 to 39"),
        ({"prompts": [[-1]]}, "prompt 0 holds token -1"),
        ({"max_tokens": 0}, "max_tokens must be a whole number of at least 1; got 0"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 10**20}, "max_tokens must be a whole number from 1 to 1,000,000,000"),
        ({"temperature": -0.1}, "temperature must be a number of at least 0; got -0.1"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"temperature": float("inf")}, "temperature must be"),
        ({"temperature": "hot"}, "temperature must be"),
        ({"top_k": 0}, "top_k must be a whole number of at least 1"),
        ({"top_k": 2.0}, "top_k must be"),
        ({"top_p": 0}, "top_p must be above 0 and at most 1"),
        ({"top_p": 1.1}, "top_p must be"),
        ({"repetition_penalty": 0}, "repetition_penalty must be a number above 0"),
        ({"stop_strings": ["a"]}, "stop_strings need decode"),
        ({"stop_strings": [""], "decode": letters}, "stop_strings must be a list of strings"),
        ({"stop_strings": "ab", "decode": letters}, "stop_strings must be a list of strings"),
        ({"stop_tokens": 3}, "stop_tokens must be a list of tokens; got 3"),
        ({"stop_tokens": ["a"]}, "stop_tokens must be"),
        ({"seed": [1, 2]}, "seed must be one number or one for each of 1 prompts"),
        ({"seed": 1.5}, "seed must be"),
        ({"seed": ["a"]}, "seed must be whole numbers"),
        ({"seed": 2**70}, "seed must be whole numbers of 64 bits"),
    ],
)
def test_bad_settings_are_refused(model, settings, message):
    with pytest.raises(InputError, match=message):
        generate(model, **{"prompts": [[1]], **settings})


def test_logits_that_are_not_finite_are_explained():
    model = make("mamba", "s4d")
    with torch.no_grad():
        model.blocks[0].mixer.A_log[2, 1] = torch.nan
    with pytest.raises(InputError, match=r"not finite, because blocks\.0\.mixer\.A_log"):
        generate(model, [[1]])
    model = make("mamba", "s4d")
    _, state = model.prefill(torch.tensor([[1]]))
    state[1] = state[1] * torch.inf
    with pytest.raises(InputError, match=r"the state of block 1 \(s4d\) has overflowed"):
        generate(model, [[1]], state=state)
    model = make("mamba")
    with torch.no_grad():
        model.norm.weight.fill_(1e38)
    with pytest.raises(InputError, match="although the weights and the states are"):
        generate(model, [[1]])


def test_the_penalty_sees_prompt_and_text(model):
    (plain,) = generate(model, [[1]], max_tokens=30)
    (result,) = generate(model, [[1]], max_tokens=30, repetition_penalty=1e6)
    assert len(set(plain.tokens)) < 30
    assert len({1, *result.tokens}) == 31  # nothing twice, while there is anything else


def test_memory_does_not_grow_with_the_text(model, monkeypatch):
    sizes, decoded = set(), set()
    step = model.step

    def measured(tokens, state):
        logits, state = step(tokens, state)
        sizes.add(logits.nbytes + sum(s.nbytes for s in tree_leaves(state)))
        return logits, state

    def decode(numbers):
        decoded.add(len(numbers))
        return letters(numbers)

    monkeypatch.setattr(model, "step", measured)
    (result,) = generate(model, [[1]], max_tokens=200, decode=decode, stop_strings=["zzzzz"])
    assert len(result.tokens) == 200
    assert len(sizes) == 1
    assert max(decoded) <= 2


def test_only_allowed_tokens_are_drawn():
    """Every one of them, as often as its probability among them says, and no other."""
    model = LanguageModel(LanguageSpec(50, 8, ("mamba",)))
    allowed = [3, 7, 20, 41]
    chance = model(torch.tensor([[1]]))[0][0, -1, allowed].double().softmax(0)
    rows = generate(
        model, [[1]] * 2000, max_tokens=1, temperature=1.0, allowed_tokens=allowed, seed=0
    )
    found = torch.bincount(torch.tensor([row.tokens[0] for row in rows]), minlength=50) / 2000
    assert found.sum() == found[allowed].sum()
    spread = (chance * (1 - chance) / 2000).sqrt()
    assert ((found[allowed] - chance).abs() < 5 * spread).all()
    with pytest.raises(InputError):
        generate(model, [[1]], max_tokens=1, allowed_tokens=[50])
