"""Learn a small language from its text, byte by byte, and generate it.

Every sentence is article, adjective, noun, verb, article, noun. The words are drawn at random, so
no model can need fewer bits than the entropy of the draws: the dotted line.
"""

import math
import random
import re

import matplotlib.pyplot as plt

from longstate import TextModel
from longstate.train import TextTraining

WORDS = {
    "article": ["the", "a", "one", "every"],
    "adjective": ["small", "red", "quick", "old"],
    "noun": ["cat", "river", "engine", "bird"],
    "verb": ["sees", "likes", "follows", "hears"],
}
ORDER = ("article", "adjective", "noun", "verb", "article", "noun")


def sentence(draw: random.Random) -> str:
    return " ".join(draw.choice(WORDS[kind]) for kind in ORDER) + ".\n"


draw = random.Random(0)
text = "".join(sentence(draw) for _ in range(2000))

training = TextTraining(steps=200, batch_size=8, learning_rate=1e-2)
model = TextModel("mamba", d_model=48, n_layers=1, context=128, training=training)
model.fit(text=text)

grammar = " ".join(f"({'|'.join(WORDS[kind])})" for kind in ORDER) + r"\."
written = model.generate("\n", max_tokens=1500, temperature=1.0).splitlines()[:-1]
right = sum(bool(re.fullmatch(grammar, line)) for line in written)
best = len(ORDER) * math.log2(4) / (len(text) / 2000)
looks = model.history.looks
print(f"bits per byte: {looks[-1].bits_per_byte:.2f} after {looks[-1].step} steps, best {best:.2f}")
print(f"{right} of the {len(written)} sentences that it wrote follow the grammar")

figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
axis.plot([x.step for x in looks], [x.bits_per_byte for x in looks], "o-", ms=4, label="the model")
axis.axhline(best, color="C1", ls=":", label="what the draws are worth")
axis.set(xlabel="step", ylabel="bits per byte", ylim=(0, None))
axis.legend()
figure.savefig("text_from_bytes.svg")
