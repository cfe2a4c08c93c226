"""Bounds of a model for all inputs: proved, found by an attack, and seen on data.

`longstate certify` does the same for a run or a checkpoint; its exit code can be used in scripts.
"""

import matplotlib.pyplot as plt
import torch

from longstate.memory import certify
from longstate.models import LanguageModel, LanguageSpec

torch.manual_seed(0)
model = LanguageModel(LanguageSpec(vocab_size=64, d_model=16, layers=("mamba", "s4d")))
tokens = torch.randint(64, (2, 200))

certificate = certify(model, tokens)
print(certificate.table())
print(f"every claim holds: {certificate.passed}")

# A rising claim is an upper bound: certified >= attacked >= seen.
claims = [c for c in certificate.claims if c.seen is not None and c.certified is not None]
figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
for i, claim in enumerate(claims):
    axis.plot([claim.seen, claim.certified], [i, i], color="#c3cad1", zorder=0)
    axis.plot(
        claim.certified, i, "s", color="C0", label="proved for all inputs" if i == 0 else None
    )
    if claim.attacked is not None:
        axis.plot(
            claim.attacked, i, "D", color="C1", label="found by an attack" if i == 0 else None
        )
    axis.plot(claim.seen, i, "o", color="C2", label="seen on data" if i == 0 else None)
axis.set(xscale="log", yticks=range(len(claims)), yticklabels=[c.what for c in claims])
figure.legend(loc="outside upper center", ncols=3)
figure.savefig("certify_a_model.svg")
