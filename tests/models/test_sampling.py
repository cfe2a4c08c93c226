"""The choice of a token, against the probabilities that it must follow."""

from collections import Counter

import torch

from longstate.models._sampling import Sampling


def frequencies(settings, logits, seen=(), draws=4000):
    draw = torch.Generator().manual_seed(0)
    flags = torch.zeros(len(logits), dtype=torch.bool)
    flags[list(seen)] = True
    counts = Counter(settings.choose(torch.tensor(logits), flags, draw) for _ in range(draws))
    return torch.tensor([counts[i] / draws for i in range(len(logits))])


def test_draws_follow_the_probabilities():
    logits = [0.0, 1.0, -1.0, 2.0, -30.0]
    for temperature in (0.5, 1.0, 2.0):
        p = (torch.tensor(logits) / temperature).softmax(0)
        found = frequencies(Sampling(temperature), logits)
        assert ((found - p).abs() < 4 * (p * (1 - p) / 4000).sqrt() + 1e-9).all()


def test_top_k_and_top_p_keep_the_most_likely():
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log().tolist()
    p = torch.tensor([0.1, 0.4, 0.2, 0.3])

    def drawn(**settings):
        found = frequencies(Sampling(1.0, **settings), logits)
        kept = found > 0
        want = torch.where(kept, p, 0) / p[kept].sum()
        assert ((found - want).abs() < 0.04).all()
        return set(kept.nonzero().flatten().tolist())

    assert drawn() == drawn(top_k=9) == drawn(top_p=1.0) == {0, 1, 2, 3}
    assert drawn(top_k=1) == drawn(top_p=0.39) == drawn(top_p=1e-9) == {1}
    assert drawn(top_k=2) == drawn(top_p=0.41) == drawn(top_p=0.69) == {1, 3}
    assert drawn(top_p=0.71) == {1, 2, 3}
    # of three tokens, 4/9 + 3/9 of the probability
    assert drawn(top_k=3, top_p=0.77) == {1, 3}
    assert drawn(top_k=3, top_p=0.78) == {1, 2, 3}


def test_top_p_beyond_the_first_part_of_the_vocabulary():
    """A flat distribution over 3,000 tokens: half of the probability takes half of them."""
    score = torch.zeros(3000, dtype=torch.float64)
    kept = Sampling(1.0, top_p=0.5)._kept(score)
    assert len(kept) in (1500, 1501)
    assert len(Sampling(1.0, top_k=700, top_p=0.5)._kept(score)) in (350, 351)


def test_temperatures_near_zero_are_greedy():
    logits = [0.0, 3.0, 3.0001, -1.0]
    for temperature in (0.0, 1e-9, 1e-320):
        assert frequencies(Sampling(temperature), logits, draws=50)[2] == 1


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits():
    p = torch.tensor([2.0 / 1.5, 1.0, -0.5 * 1.5]).softmax(0)
    found = frequencies(Sampling(1.0, repetition_penalty=1.5), [2.0, 1.0, -0.5], seen=[0, 2])
    assert ((found - p).abs() < 4 * (p * (1 - p) / 4000).sqrt()).all()
    greedy = Sampling(repetition_penalty=3.0)
    assert frequencies(greedy, [2.0, 1.0, -0.5], seen=[0], draws=1)[1] == 1
