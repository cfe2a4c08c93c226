"""Generate with weights in 8 bits: a quarter of the memory, almost the same text.

A step reads every weight once, so its time is about the time to read the weights.
"""

import matplotlib.pyplot as plt
import torch

from longstate.models import LanguageModel, LanguageSpec, generate, prepare_for_decoding

torch.manual_seed(0)
spec = LanguageSpec(vocab_size=256, d_model=256, layers=("mamba",) * 4)
model = LanguageModel(spec).eval()
prompts = [b"state space models", b"run anywhere"]


def linear_bytes(module: torch.nn.Module) -> int:
    """Bytes of the linear layers' weights, all of which a step reads."""
    kinds = ("Linear", "PanelLinear")
    found = [m for m in module.modules() if type(m).__name__ in kinds]
    tensors = [t for m in found for t in (*m.parameters(), *m.buffers())]
    return sum(t.numel() * t.element_size() for t in tensors)


tokens = torch.tensor([list(prompts[0])])
with torch.no_grad():
    exact = model(tokens)[0].double()

names, sizes, errors = ["float32", "bfloat16", "int8"], [], []
for name in names:
    fast = prepare_for_decoding(model, name)  # a copy; the model is not changed
    with torch.no_grad():
        error = (fast(tokens)[0].double() - exact).norm() / exact.norm()
    sizes.append(linear_bytes(fast) / 1e6)
    errors.append(float(error))
    print(f"{name:9s} {sizes[-1]:5.2f} MB of weights, logits off by {errors[-1]:.0e}")

after = generate(fast, prompts, max_tokens=20)
print(f"{len(after)} prompts continued by {len(after[0].tokens)} tokens each, in 8 bits")

figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.6), layout="constrained")
left.bar(names, sizes, color=["C0", "C1", "C2"])
left.set_ylabel("MB of linear weights")
right.bar(names, errors, color=["C0", "C1", "C2"])
right.set(yscale="log", ylabel="relative error of logits")
figure.savefig("decode_in_8_bits.svg")
