"""One model in three formats: longstate, transformers, mamba-ssm.

Neither of the other libraries is needed. A converted folder is loaded again and compared, bit for
bit, before it gets its final name.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch

from longstate.interop import load_language_model, save_language_model
from longstate.models import LanguageModel, LanguageSpec

torch.manual_seed(0)
model = LanguageModel(LanguageSpec(vocab_size=128, d_model=64, layers=("mamba",) * 2)).eval()

for dialect in ("transformers", "mamba-ssm"):
    folder = Path(f"tiny-{dialect}")
    save_language_model(model, folder, dialect)
    for file in sorted(folder.iterdir()):
        print(f"{file}")

tokens = torch.randint(128, (1, 64), generator=torch.Generator().manual_seed(1))
with torch.no_grad():
    ours = model(tokens)[0]
    theirs = load_language_model("tiny-transformers")(tokens)[0]
    other = load_language_model("tiny-mamba-ssm")(tokens)[0]
print(f"logits are equal, bit for bit: {torch.equal(ours, theirs) and torch.equal(ours, other)}")

figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
axis.plot(ours[0, -1], lw=4, alpha=0.3, label="the model")
axis.plot(theirs[0, -1], lw=1.2, label="back from the format of transformers")
axis.plot(other[0, -1], ".", ms=4, label="back from the format of mamba-ssm")
axis.set(xlabel="token", ylabel="logit")
axis.margins(y=0.35)
axis.legend(loc="upper left", ncols=3)
figure.savefig("convert_a_checkpoint.svg")
