"""Every layer satisfies the contract; a layer that violates a clause is found."""

import pytest
import torch

from longstate.layers import (
    DSS,
    GRU,
    GRUD,
    HOPE,
    LSTM,
    S4,
    S4D,
    S5,
    SMR,
    Attention,
    CfC,
    Chimera,
    ConvS5,
    Elman,
    FalconMamba,
    GatedSSM,
    LinearCDE,
    LinearRNN,
    LinOSS,
    Longhorn,
    LongVQ,
    Mamba,
    Mamba2,
    Mamba3,
    Spiking,
    TensorPower,
    Timed,
)
from longstate.testing import check_layer

LAYERS = {
    "s4-legs": lambda: S4(3, d_state=6),
    "s4-legt": lambda: S4(3, d_state=6, init="legt"),
    "s4-fout": lambda: S4(3, d_state=6, init="fout"),
    "s4d-lin": lambda: S4D(5, d_state=8),
    "s4d-inv": lambda: S4D(5, d_state=8, init="inv"),
    "s4d-legs": lambda: S4D(5, d_state=8, init="legs"),
    "s4d-real": lambda: S4D(5, d_state=3, init="real"),
    "s4d-signed": lambda: S4D(5, d_state=4, init="signed"),
    "s4d-bilinear": lambda: S4D(5, d_state=8, variant="bilinear"),
    "dss-exp": lambda: DSS(3, d_state=6),
    "dss-softmax": lambda: DSS(3, d_state=6, variant="softmax", length=40),
    "s5-zoh": lambda: S5(5, d_state=8, n_blocks=2),
    "s5-bilinear": lambda: S5(5, d_state=8, variant="bilinear"),
    "convs5": lambda: ConvS5(12, height=2, width=3, d_state=4),
    "convs5-blocks": lambda: ConvS5(4, height=4, width=1, d_state=8, n_blocks=2, kernel=1),
    "chimera": lambda: Chimera(4, d_state=3),
    "chimera-variates": lambda: Chimera(6, variates=3, d_state=2),
    "chimera-many-variates": lambda: Chimera(30, variates=30, d_state=2),
    "hope": lambda: HOPE(3, d_state=6),
    "linoss-im": lambda: LinOSS(5, d_state=4, variant="im"),
    "linoss-imex": lambda: LinOSS(5, d_state=4, variant="imex"),
    "mamba": lambda: Mamba(6, d_state=4),
    "mamba-two-taps": lambda: Mamba(6, d_state=4, d_conv=2, expand=1),
    "mamba-rank": lambda: Mamba(6, d_state=4, dt_rank=3),
    "falcon-mamba": lambda: FalconMamba(6, d_state=4),
    "longhorn-diagonal": lambda: Longhorn(6, d_state=4),
    "longhorn-exact": lambda: Longhorn(6, d_state=4, variant="exact"),
    "mamba2": lambda: Mamba2(6, d_state=5, d_head=4),
    "mamba2-groups": lambda: Mamba2(8, d_state=5, d_head=4, n_groups=2, d_conv=3),
    "mamba-limits": lambda: Mamba(6, d_state=4, dt_limit=(0.01, 0.05)),
    "mamba2-limits": lambda: Mamba2(6, d_state=5, d_head=4, dt_limit=(0.01, 0.05)),
    "mamba3-rational": lambda: Mamba3(6, d_state=8, d_head=4),
    "mamba3-softplus": lambda: Mamba3(
        8, d_state=7, d_head=4, n_groups=2, rope_fraction=0.9, variant="softplus"
    ),
    "falcon-mamba-columns": lambda: FalconMamba(6, d_state=(5, 3)),
    "longhorn-columns": lambda: Longhorn(6, d_state=(5, 3)),
    "mamba2-projected": lambda: Mamba2(8, d_state=(5, 3), d_head=4, n_groups=2),
    "mamba3-projected": lambda: Mamba3(8, d_state=(8, 3), d_head=4, n_groups=2),
    "smr-s4": lambda: SMR(S4(3, d_state=6)),
    "smr-s4d": lambda: SMR(S4D(5, d_state=8), form="gate"),
    "smr-s5": lambda: SMR(S5(5, d_state=8), window=3),
    "smr-linoss": lambda: SMR(LinOSS(5, d_state=4), form="residual"),
    "smr-mamba": lambda: SMR(Mamba(6, d_state=4), window=1),
    "smr-mamba2": lambda: SMR(Mamba2(6, d_state=5, d_head=4), form="gate"),
    "smr-longhorn": lambda: SMR(Longhorn(6, d_state=4)),
    "spiking-s4d": lambda: Spiking(S4D(5, d_state=8)).eval(),  # training draws spikes
    "spiking-mamba": lambda: Spiking(Mamba(6, d_state=4)).eval(),
    "linear-cde": lambda: LinearCDE(5, d_state=6),
    "linear-cde-block": lambda: LinearCDE(5, d_state=6, variant="block", block=3),
    "linear-cde-diagonal": lambda: LinearCDE(5, d_state=6, variant="diagonal"),
    "linear-cde-start": lambda: LinearCDE(5, d_state=6, start="learned"),
    "linear-cde-stable": lambda: LinearCDE(5, d_state=6, start="learned", stable=True),
    "linear-cde-diagonal-start": lambda: LinearCDE(
        5, d_state=6, variant="diagonal", start="learned"
    ),
    "linear-rnn": lambda: LinearRNN(5, d_state=7),
    "elman": lambda: Elman(5, d_state=7),
    "gru": lambda: GRU(5, d_state=7),
    "lstm": lambda: LSTM(5, d_state=7),
    "longvq": lambda: LongVQ(5, d_state=3, d_key=4, n_codes=6, window=3),
    "tensor-power": lambda: TensorPower(5, d_state=7),
    "cfc": lambda: CfC(5, d_state=7, d_backbone=6),
    "cfc-no-gate": lambda: CfC(5, d_state=7, d_backbone=6, n_backbone=2, variant="no_gate"),
    "cfc-pure": lambda: CfC(5, d_state=7, d_backbone=6, variant="pure"),
    "grud": lambda: GRUD(5, d_state=7),
    "timed-constant": lambda: Timed(S5(5, d_state=8), step="constant"),
    "timed-learned": lambda: Timed(S4D(5, d_state=8), step=("linear", "learned")),
    "timed-tokens": lambda: Timed(S5(5, d_state=8), step=("linear", "tokens")),
    "timed-saturating": lambda: Timed(LinOSS(5, d_state=4), step="saturating"),
    "timed-cosine": lambda: Timed(Mamba(6, d_state=4), step=("cosine", "tokens")),
    "timed-cell": lambda: Timed(CfC(5, d_state=7, d_backbone=6), step="saturating"),
    "gated-ssm": lambda: GatedSSM(5, d_state=7),
    "gated-ssm-hard": lambda: GatedSSM(5, d_state=7, top_k=3),
    "gated-ssm-floor": lambda: GatedSSM(5, d_state=7, top_k=3, floor=0.02),
    "attention": lambda: Attention(8, n_heads=2),
    "attention-no-positions": lambda: Attention(6, n_heads=2, positions="none"),
    "attention-window": lambda: Attention(8, n_heads=2, window=6),
    "attention-window-of-one": lambda: Attention(4, n_heads=1, window=1),
}
NO_DT = {
    *("s4-legs", "s4-legt", "s4-fout", "hope", "longhorn-diagonal", "longhorn-exact"),
    *("longhorn-columns", "smr-s4", "smr-longhorn", "s4d-signed"),
    *("linear-rnn", "elman", "gru", "lstm", "tensor-power", "longvq"),
    *(name for name in LAYERS if name.startswith("attention")),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_keeps_the_contract(name):
    check_layer(LAYERS[name], takes_dt=name not in NO_DT)


def test_layer_keeps_the_contract_over_many_chunks():
    check_layer(lambda: S4D(2, d_state=4), time=200)
    check_layer(lambda: S4(2, d_state=4), time=200, takes_dt=False)
    check_layer(lambda: Mamba2(4, d_state=3, d_head=2), time=140)
    check_layer(lambda: Mamba3(4, d_state=4, d_head=2), time=140)


class ForgetsState(S4D):
    def forward(self, u, state=None, **options):
        return super().forward(u, None, **options)


class DetachesState(S4D):
    def forward(self, u, state=None, **options):
        return super().forward(u, None if state is None else state.detach(), **options)


class WritesIntoItsState(S4D):
    def step(self, u, state, **options):
        y, after = super().step(u, state, **options)
        return y, after if torch.is_grad_enabled() else state.copy_(after)


class KeepsTheSequence(S4D):
    def forward(self, u, state=None, **options):
        y, state = super().forward(u, state, **options)
        return y, state.expand(u.shape[1], *state.shape).contiguous()[-1]


class SeesTheFuture(S4D):
    def forward(self, u, state=None, **options):
        y, state = super().forward(u, state, **options)
        return y + 1e-9 * u.flip(1), state


class MixesTheBatch(S4D):
    def forward(self, u, state=None, **options):
        y, state = super().forward(u, state, **options)
        return y + u.mean(0), state


class IgnoresMask(S4D):
    def forward(self, u, state=None, *, mask=None, **options):
        y, state = super().forward(u, state, **options)
        return (y if mask is None else y * mask[..., None]), state


class LetsNaNThrough(S4D):
    def forward(self, u, state=None, *, mask=None, **options):
        y, state = super().forward(u, state, mask=mask, **options)
        return (y if mask is None else torch.where(mask[..., None], y + 0 * self.D * u, 0)), state


class IgnoresReset(S4D):
    def forward(self, u, state=None, *, reset=None, **options):
        return super().forward(u, state, **options)


class KeepsNarrowState(S4D):
    def forward(self, u, state=None, **options):
        y, state = super().forward(u, state, **options)
        return y, state.to(torch.complex32) if u.dtype == torch.bfloat16 else state


BROKEN = [
    (ForgetsState, "step is forward"),
    (DetachesState, "gradients carry"),
    (WritesIntoItsState, "keeps its input"),
    (KeepsTheSequence, "holds no sequence"),
    (SeesTheFuture, "step is forward|chunks|causal"),
    (MixesTheBatch, "step is forward|batch invariant"),
    (IgnoresMask, "mask removes"),
    (LetsNaNThrough, "finite gradients"),
    (IgnoresReset, "packed is separate"),
    (KeepsNarrowState, "narrow input"),
]


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize(("broken", "clause"), BROKEN)
def test_broken_layers_are_caught(broken, clause):
    with pytest.raises(AssertionError, match=clause):
        check_layer(lambda: broken(3, d_state=4), compiles=False)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (3, r"expects state to be a dict of taps, ssm for a batch of 1; got 3 \(int\)"),
        ({"taps": 1}, "expects state to be a dict of taps, ssm .*; got a dict of taps:"),
        (
            {"taps": [], "ssm": []},
            r"expects state\['taps'\] to be float32 \(1, 3, 12\) .*; got a list of 0",
        ),
    ],
)
def test_a_wrong_state_is_named(state, message):
    with pytest.raises(ValueError, match=f"Mamba {message}"):
        Mamba(6, d_state=4)(torch.zeros(1, 2, 6), state)


def test_a_state_of_another_type_is_named():
    layer, u = S4(3, d_state=6), torch.zeros(2, 4, 3)
    message = (
        r"S4 expects state to be float32 \(2, 3, 6\) for a batch of 2; got float64 \(2, 3, 6\)"
    )
    with pytest.raises(ValueError, match=message):
        layer(u, layer.init_state(2).double())


@pytest.mark.parametrize("make", [lambda: S5(4), lambda: LinOSS(4), lambda: Mamba(4)])
@pytest.mark.parametrize("rate", [-1, 0.0, float("nan"), float("inf"), "2"])
def test_an_invalid_rate_is_named(make, rate):
    with pytest.raises(ValueError, match="expects rate to be a finite number above 0; got"):
        make()(torch.zeros(1, 2, 4), rate=rate)


@pytest.mark.parametrize(
    "make", [lambda: S5(4), lambda: S4D(4), lambda: LinOSS(4), lambda: Mamba(4)]
)
@pytest.mark.parametrize("wrong", [-1.0, float("inf"), float("nan")])
def test_an_invalid_time_is_named(make, wrong):
    dt = torch.tensor([[1.0, wrong]])
    with pytest.raises(ValueError, match="expects every dt to be finite and at least 0"):
        make()(torch.zeros(1, 2, 4), dt=dt)
    with pytest.raises(ValueError, match="expects every dt to be finite and at least 0"):
        make().step(torch.zeros(1, 4), None, dt=dt[:, 1])


@pytest.mark.parametrize("name", ["mamba", "longhorn-exact", "mamba2", "mamba3-rational"])
def test_a_masked_sample_has_no_effect_in_a_projection_with_a_bias(name):
    """Models may give a layer biases: then the projection of a cleared sample is not 0."""
    layer = LAYERS[name]().double()
    for linear in (layer.in_proj, layer.out_proj):
        linear.bias = torch.nn.Parameter(torch.randn(linear.out_features, dtype=torch.float64))
    u = torch.randn(2, 12, layer.d_model, dtype=torch.float64)
    mask = torch.arange(12) % 3 != 1
    y, state = layer(u, mask=mask.expand(2, -1))
    expected, last = layer(u[:, mask])
    torch.testing.assert_close((y[:, mask], state), (expected, last))
    assert not y[:, ~mask].any()


def test_bidirectional_layers_accept_an_empty_batch():
    for layer in (S4D(4, bidirectional=True), S5(4, bidirectional=True)):
        y, state = layer(torch.zeros(0, 5, 4))
        assert y.shape == (0, 5, 4)
        assert state == ()
