"""transformers uses importable packages: provided names change its speed and not its results."""

import importlib.util

import pytest
import torch

from tests.golden import assert_parity
from tests.ops.helpers import run_python

SCRIPT = """
import sys, torch
if {provide}:
    from longstate.interop import provide_mamba_ssm
    provide_mamba_ssm()
from transformers import Mamba2Config, Mamba2ForCausalLM, MambaConfig, MambaForCausalLM
from transformers.utils import import_utils
assert import_utils._is_package_available("mamba_ssm")[0] == {provide}
for check in ("is_mamba_ssm_available", "is_mamba_2_ssm_available", "is_causal_conv1d_available"):
    assert getattr(import_utils, check)() == ({provide} and torch.cuda.is_available()), check
size = dict(vocab_size=50, hidden_size=32, num_hidden_layers=2, state_size=8)
heads = dict(num_heads=8, head_dim=8, n_groups=2, chunk_size=16)
found = []
for model, config in (
    (MambaForCausalLM, MambaConfig(**size)),
    (Mamba2ForCausalLM, Mamba2Config(**size, **heads)),
):
    torch.manual_seed(0)
    model, ids = model(config), torch.randint(0, 50, (2, 37))
    model.train()(ids, labels=ids).loss.backward()
    grads = torch.cat([p.grad.flatten() for p in model.parameters()])
    with torch.no_grad():
        logits = model.eval()(ids).logits
        options = dict(do_sample=False, pad_token_id=0, output_logits=True)
        scores = model.generate(ids, max_new_tokens=5, return_dict_in_generate=True, **options)
    found += [grads, logits, torch.stack(scores.logits)]
print("ours" if "longstate.interop.mamba_ssm.scan" in sys.modules else "its own")
torch.save(found, {path!r})
"""


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="no transformers")
@pytest.mark.skipif(importlib.util.find_spec("mamba_ssm") is not None, reason="mamba-ssm is there")
def test_training_and_generation_give_the_same(tmp_path):
    results = []
    for provided in (False, True):
        path = str(tmp_path / f"{provided}.pt")
        printed = run_python(SCRIPT.format(provide=provided, path=path), HF_HUB_OFFLINE="1")
        assert printed.split("\n")[0] == ("ours" if provided else "its own")
        results.append(torch.load(path))
    for expected, found in zip(*results, strict=True):
        assert_parity(found, expected)
