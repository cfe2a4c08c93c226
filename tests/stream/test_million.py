"""A million tokens through a small model, in memory that does not grow."""

import subprocess
import sys

import pytest

TOKENS, CHUNK, D_MODEL = 1_000_000, 4096, 8

SCRIPT = f"""
import resource, sys, torch
from torch import nn
from longstate.layers import S4D, Longhorn
from longstate.models import Stack
from longstate.stream import Stream

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(32, {D_MODEL})
        mixers = [S4D({D_MODEL}, d_state=8), Longhorn({D_MODEL}, d_state=4)]
        self.backbone = Stack(mixers)
    def init_state(self, batch):
        return self.backbone.init_state(batch)
    def forward(self, tokens, state=None):
        y, state = self.backbone(self.embedding(tokens), state)
        return y @ self.embedding.weight.T, state

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def text(chunk):  # made as it is needed, so that the input takes no memory either
    return torch.randint(32, (1, {CHUNK}), generator=torch.Generator().manual_seed(chunk))

torch.manual_seed(0)
torch.set_num_threads(1)
model = Model().double().eval()
stream = Stream(model, grad=sys.argv[1] == "grad")
chunks, early, first = -(-{TOKENS} // {CHUNK}), None, []
for chunk in range(chunks):
    tokens = text(chunk)[:, : {TOKENS} - stream.position]
    y = stream.push(tokens)
    if chunk < 2:
        first.append(y)
    if early is None and stream.position >= {TOKENS} / 10:
        early = peak()
    if early and peak() - early > 1e9:
        break  # enough has been seen
print(stream.position, peak() - early)
with torch.no_grad():
    whole, _ = model(torch.cat([text(0), text(1)], 1))
torch.testing.assert_close(torch.cat(first, 1), whole)
assert all(t.isfinite().all() for t in (y, stream.state[0], *stream.state[1].values()))
"""


def growth(mode):
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, mode], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return tuple(map(int, run.stdout.split()))


ONE_NUMBER_EACH = 0.9 * TOKENS * 8
"""Bytes, if no more than the token itself were kept of what comes after the first tenth."""


@pytest.mark.skipif(sys.platform == "win32", reason="the peak is read as POSIX tells it")
def test_a_million_tokens_in_constant_memory():
    position, grown = growth("constant")
    assert position == TOKENS
    assert grown < ONE_NUMBER_EACH


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the peak is read as POSIX tells it")
def test_memory_kept_for_backward_is_detected():
    assert growth("grad")[1] > ONE_NUMBER_EACH
