import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from longstate.errors import InputError
from longstate.layers import LinOSS
from longstate.memory import KINDS
from longstate.reports import _memory_advice as memory_advice
from longstate.reports import _memory_examine as memory_examine
from longstate.reports import _memory_figures as memory_figures
from longstate.reports import memory
from longstate.reports._subject import TEXT, open_subject
from tests.reports.memory_samples import checkpoint, forecast_run, text_model, text_run
from tests.reports.test_forecast_report import TAGS, Reader


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(memory_examine, "SEQUENCES", 500)
    monkeypatch.setattr(memory_examine, "LAGS", (0, 3, 12))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The report of a text model with a selective and a linear layer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory_examine, "SEQUENCES", 500)
        patch.setattr(memory_examine, "LAGS", (0, 3, 12))
        subject = open_subject(text_run(tmp_path_factory.mktemp("text") / "run"))
        return memory.examine(subject, subject.read(None))


def test_the_report_of_a_text_model_is_complete(made):
    first, second = made.layers
    assert (first.type, second.type) == ("Mamba", "S4D")
    assert first.effective is not None
    assert first.spectrum is None
    assert first.known is not None
    assert second.spectrum is not None
    assert second.curve is not None
    assert second.known is not None
    assert made.certificate.passed
    assert made.notes == ()
    assert made.length == 32
    text = " ".join(Reader(memory.render(made)).text)
    for part in (
        "Bounds for all inputs",
        "Time scales",
        "Memory curve of the linear layers",
        "Memory curve of the text model",
        "How much of the state is used",
        "The state in use along the text",
        "Hidden attention of blocks.0.mixer",
        "A Tale of Two Cities",
        "training saw 32 at a time",
    ):
        assert part in text, part


def test_numbers_of_the_table_are_those_of_the_results(made):
    head, (first, second) = made.rows()
    assert len(head) == len(first) == len(second)
    assert first[2] == f"{16 * 16 + 3 * 16:,}"  # states, and taps of the convolution
    half = float(made.layers[0].scales.steps.median())
    assert first[3] == f"{half:.1f}"


def test_the_newest_letter_is_known_and_an_old_one_is_not(made):
    """The short convolution holds the last three tokens as they are."""
    bits = dict(zip(made.layers[0].known.labels, made.layers[0].known.bits.tolist(), strict=True))
    assert bits["lag 0"] > 1.0
    assert bits["lag 12"] < 0.5


def test_every_figure_shows_the_kind_of_its_numbers(made):
    page = memory.render(made)
    kinds = re.findall(r'<figcaption><span class="kind">([\w ]+)</span>', page)
    assert len(kinds) == page.count("<figure>") == 7
    assert set(kinds) <= {kind.replace("_", " ") for kind in KINDS}
    assert {"exact", "estimate", "lower bound"} <= set(kinds)


def test_the_page_is_well_formed_and_makes_no_requests(made):
    hostile = replace(made, name='<script>alert(1)</script>"><img src=x>', what="</title>&")
    reader = Reader(memory.render(hostile))
    assert reader.tags <= TAGS | {"image", "code"}
    outside = [v for n, v in reader.attributes if n in ("src", "href", "action")]
    assert [v for v in outside if not v.startswith(("#", "data:"))] == []
    assert len(reader.ids) == len(set(reader.ids))
    assert len(memory.render(made)) < 1_000_000


def test_of_a_forecaster_no_data_is_needed(tmp_path):
    run, _ = forecast_run(tmp_path)
    subject = open_subject(run)
    found = memory.examine(subject, subject.read(None))
    assert [m.type for m in found.layers] == ["S4D", "S4D"]
    assert all(m.spectrum is not None and m.curve is not None for m in found.layers)
    assert found.length == 24
    assert "training saw 24 at a time" in memory.headline(found)
    assert "No data was needed" in memory.render(found)


def test_of_a_selective_forecaster_with_and_without_data(tmp_path):
    run, data = forecast_run(tmp_path, "mamba")
    subject = open_subject(run)
    without = memory.examine(subject, subject.read(None))
    assert all(m.scales is None for m in without.layers)
    assert "--data" in memory.render(without)
    found = memory.examine(subject, subject.read(data))
    assert all(m.scales is not None for m in found.layers)
    assert all(c.ordered() for c in found.certificate.claims)


def test_a_layer_without_decay_is_reported(tmp_path):
    model = text_model(("linoss",), options={"linoss": {"variant": "imex"}})
    assert isinstance(model.blocks[0].mixer, LinOSS)
    subject = open_subject(text_run(tmp_path / "run", model))
    found = memory.examine(subject, subject.read(None))
    assert not found.certificate.passed
    assert found.layers[0].spectrum is not None
    assert any("infinite" in note for note in found.notes)
    assert "for ever" in memory.render(found) or "does not fade" in memory.headline(found)
    assert 'class="bad"' in memory.render(found)


@pytest.mark.parametrize("dialect", ["transformers", "mamba-ssm"])
def test_of_a_checkpoint(dialect, tmp_path):
    subject = open_subject(checkpoint(tmp_path / "theirs", dialect))
    assert subject.vocabulary == 40
    with pytest.raises(InputError, match="npy"):
        subject.read(None)
    np.save(tmp_path / "tokens.npy", np.arange(400) % 40)
    found = memory.examine(subject, subject.read(tmp_path / "tokens.npy"))
    assert found.certificate.passed
    assert found.length is None
    assert found.layers[0].effective is not None


def test_the_first_box_advises_with_numbers(made):
    """Bytes, a d_state, and a share: each from the results, not from the page's code."""
    found = memory_advice.advice(made)
    numbers = sum(m.states for m in made.layers)
    assert f"{numbers:,} numbers" in found[0].text
    page = memory.render(made)
    assert page.index("<h2>Advice") < page.index("The layers")
    assert "blocks.0.mixer" in " ".join(f.text for f in found)
    values = made.layers[1].spectrum.values
    share = values.cumsum(-1) / values.sum(-1, keepdim=True)
    needed = max(int((row < 0.99).sum()) + 1 for row in share)
    suggested = memory_advice.suggested_d_state(made.layers[1])
    assert suggested == needed + needed % 2
    assert memory_advice.suggested_d_state(made.layers[0]) is None


def test_the_use_of_selective_layers_comes_with_a_command(made):
    """Half of a state in use: a command that keeps as much, rounded up. All of it: none."""
    first = made.layers[0]
    for most, command in ((0.503, f"longstate reduce {made.name} --keep 0.51 --out NEW"), (1, "")):
        along = torch.full_like(first.effective.along, most * first.effective.d_state)
        layer = replace(first, effective=replace(first.effective, along=along))
        found = memory_advice.advice(replace(made, layers=(layer,), certificate=None, length=None))
        assert f"{100 * most:.0f} %" in found[0].text
        assert "numbers in float32" in found[0].text
        assert found[0].command == command


def few_directions(made, used, dead=0):
    """The same report with a linear layer that uses few of its 64 directions."""
    values = torch.full((8, 64), 1e-25, dtype=torch.float64)
    values[:, :used] = 1.0
    values[:dead] = 1e-25
    layer = made.layers[1]
    spectrum = replace(layer.spectrum, values=values)
    return replace(made, layers=(replace(layer, spectrum=spectrum),))


def test_a_state_that_is_hardly_used_gets_a_smaller_size(made):
    found = memory_advice.advice(few_directions(made, 9))
    assert "d_state=10" in found[0].text
    assert found[0].command == f"longstate reduce {made.name} --keep 0.16 --out NEW"
    assert "84 %" in found[0].text  # 1 - 10 / 64
    assert memory_advice.advice(few_directions(made, 63))[0].command == ""
    dead = memory_advice.advice(few_directions(made, 9, dead=2))
    assert any("2 of 8 of blocks.1.mixer" in f.text for f in dead)


def test_a_negligible_value_does_not_change_the_axis(made):
    """Values of 1 and of 1e-25: the axis shows those of 1, over a few decades."""
    axes = []
    before = memory_figures.legend

    def caught(ax, columns):
        axes.append(ax.get_ylim())
        before(ax, columns)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory_figures, "legend", caught)
        memory_figures.hankel_figure(few_directions(made, 9).layers)
    low, high = axes[-1]
    assert 1 < high < 10
    assert 1e-8 < low < 1


def test_hidden_attention_has_the_tokens_and_a_scale(made):
    page = memory.render(made)
    text = " ".join(Reader(page).text)
    assert "It was t" in text  # the first eight tokens of what was read
    assert "largest weight" in text
    assert all(f"{10.0**-i:g}" in text for i in range(5))
    assert memory_figures.visible("a\nb\tc\x00") == "a↵b⇥c·"


def test_a_text_run_is_measured_on_its_own_validation_text(tmp_path):
    run = text_run(tmp_path / "run")
    own = np.frombuffer(b"Something that was not trained on. " * 4, dtype=np.uint8)
    np.save(run / "validation.npy", own.astype(np.int64))
    reading = open_subject(run).read(None)
    assert "validation" in reading.what
    assert bytes(reading.tokens.tolist()) == own.tobytes()
    assert "".join(reading.words(9)) == "Something"


def test_too_few_letters_for_a_probe_are_noted(tmp_path):
    subject = open_subject(text_run(tmp_path / "run"))
    (tmp_path / "a.txt").write_text("ab" * 50)
    found = memory.examine(subject, subject.read(tmp_path / "a.txt"))
    assert found.layers[0].known is None
    assert any("different tokens" in note for note in found.notes)


def test_stretches_are_spread_over_the_text(tmp_path):
    subject = open_subject(text_run(tmp_path / "run"))
    reading = subject.read(None)
    rows = reading.data(4, 50)
    assert rows.shape == (4, 50)
    assert bytes(rows[0].tolist()) == TEXT.encode()[:50]
    assert bytes(rows[3].tolist()) == TEXT.encode()[-50:]
    assert reading.data(4, 10**6).shape == (1, len(TEXT))


@pytest.mark.parametrize("kind", ["language", "model"])
def test_loads_weights_as_they_are(kind, tmp_path):
    model = text_model()
    subject = open_subject(text_run(tmp_path / "run", model, kind) / "model.safetensors")
    for name, value in model.state_dict().items():
        assert torch.equal(subject.model.state_dict()[name], value)


def test_refuses_what_is_no_model(tmp_path):
    with pytest.raises(InputError, match="there is no run"):
        open_subject(tmp_path / "nowhere")
    with pytest.raises(InputError, match="neither a run"):
        open_subject(tmp_path)
    with pytest.raises(InputError, match="holds a state"):
        open_subject(text_run(tmp_path / "state", kind="state"))
    run = text_run(tmp_path / "cut")
    whole = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged"):
        open_subject(run)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda p: p, "there is no file"),
        (lambda p: p.with_suffix(".npy").write_bytes(b"x") and p.with_suffix(".npy"), "NumPy"),
        (lambda p: p.write_bytes(b"") or p, "0 tokens"),
    ],
)
def test_refuses_what_is_no_data(make, match, tmp_path):
    subject = open_subject(text_run(tmp_path / "run"))
    with pytest.raises(InputError, match=match):
        subject.read(make(tmp_path / "data"))


def test_refuses_tokens_that_the_model_has_not(tmp_path):
    subject = open_subject(text_run(tmp_path / "run"))
    np.save(tmp_path / "a.npy", np.array([0, 256]))
    with pytest.raises(InputError, match="token 256"):
        subject.read(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.array([0.5]))
    with pytest.raises(InputError, match="whole numbers"):
        subject.read(tmp_path / "b.npy")
