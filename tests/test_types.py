"""What a type checker sees: calls of layers and models have types, and not Any."""

from mypy import api

SNIPPET = """
import torch
from longstate.layers import S4D, Attention, Layer, Mamba2
from longstate.models import ForecastModel, LanguageModel, Stack, Window

def check(layer: Layer, model: LanguageModel, forecaster: ForecastModel, window: Window) -> None:
    u = torch.zeros(1, 2, 3)
    reveal_type(layer(u))
    reveal_type(S4D(3)(u, rate=2.0))
    reveal_type(Mamba2(3)(u)[0])
    reveal_type(Attention(3).step(u[:, 0], None))
    reveal_type(Stack([S4D(3)])(u))
    reveal_type(model(u))
    reveal_type(forecaster(window).point)
    S4D(3)(u, rte=2.0)
"""


def test_calls_have_types(tmp_path):
    file = tmp_path / "snippet.py"
    file.write_text(SNIPPET)
    out, _, _ = api.run([str(file)])
    revealed = [line.split('"')[1] for line in out.splitlines() if "Revealed type is" in line]
    short = [t.replace("builtins.", "").replace("torch._tensor.", "") for t in revealed]
    pair = "tuple[Tensor, Any]"
    texts = "tuple[Tensor, list[Any]]"
    assert short == [pair, pair, "Tensor", pair, pair, texts, "Tensor"], out
    assert 'Unexpected keyword argument "rte"' in out
