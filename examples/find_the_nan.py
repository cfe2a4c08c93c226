"""Find the layer and the token that produced the first number that is not finite."""

import matplotlib.pyplot as plt
import torch

from longstate.memory import watch
from longstate.models import LanguageModel, LanguageSpec

torch.manual_seed(0)
model = LanguageModel(LanguageSpec(vocab_size=64, d_model=16, layers=("mamba",) * 3, tie=False))
tokens = torch.randint(1, 64, (1, 60))
tokens[0, 41] = 7
with torch.no_grad():
    model.embedding.weight[7] = float("inf")  # as after a diverged training

with watch(model) as seen, torch.no_grad():
    logits, _ = model(tokens)

trouble = seen.result().forward
first = int((tokens[0] == 7).nonzero()[0])
print(f"{int((~logits.isfinite()).any(-1).sum())} of {tokens.shape[1]} tokens have bad logits")
print(f"it began in {trouble.layer}, at token {trouble.token}; token 7 came first at {first}")

figure, axis = plt.subplots(figsize=(7, 2.4), layout="constrained")
axis.imshow(logits[0].isfinite().T, aspect="auto", cmap="Greys_r", vmin=-1, vmax=1)
axis.axvline(trouble.token, color="C1", label="where watch says that it began")
axis.set(xlabel="token", ylabel="logit", yticks=[])
axis.legend()
figure.savefig("find_the_nan.svg")
