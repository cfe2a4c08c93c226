"""Models of `transformers` on a CPU, with and without `accelerate_transformers()`.

    python benchmarks/accelerate_transformers.py       2 layers, d_model 256, length 512

Logits, gradients and generated tokens are compared first. A training step is forward and backward;
a step with a cache is one token through the model; a generated token also includes the work of
`generate`. transformers runs as pip installs it, without the packages that need a GPU. Takes 15
minutes, almost all of it in transformers.
"""

from importlib.metadata import version

import torch
from command import parser, peers
from measure import machine, ms, ratio, rounds, save

from longstate.interop import accelerate_transformers

with peers(__name__, __doc__, "transformers"):
    import transformers

LENGTH, NEW = 512, 64
SHARED = {
    "vocab_size": 256, "hidden_size": 256, "num_hidden_layers": 2, "pad_token_id": 0,
    "bos_token_id": 0, "eos_token_id": None,
}  # fmt: skip


def models():
    """Mamba with 16 states; Mamba-2 with 8 heads of 64 channels and 128 states."""
    torch.manual_seed(0)
    mamba = transformers.MambaConfig(**SHARED)
    mamba2 = transformers.Mamba2Config(**SHARED, num_heads=8, head_dim=64, n_groups=1)
    yield "Mamba", transformers.MambaForCausalLM(mamba)
    yield "Mamba-2", transformers.Mamba2ForCausalLM(mamba2)


def accelerated(run):
    def function():
        with accelerate_transformers():
            return run()

    return function


def train(model, ids):
    def run():
        model.train()
        model.zero_grad()
        out = model(ids, labels=ids)
        out.loss.backward()
        return [out.logits.detach(), *(p.grad for p in model.parameters())]

    return run


def prefill(model, ids):
    @torch.no_grad()
    def run():
        return [model.eval()(ids).logits]

    return run


def step(model, ids):
    """Steps for `NEW` tokens, one after the other."""

    @torch.no_grad()
    def run():
        cache = model.eval()(ids[:, :1], use_cache=True).cache_params
        return [
            torch.cat(
                [
                    model(ids[:, i : i + 1], use_cache=True, cache_params=cache).logits
                    for i in range(1, 1 + NEW)
                ]
            )
        ]

    return run


def generate(model, ids):
    def run():
        return [
            model.eval().generate(
                ids[:, :16], max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False
            )
        ]

    return run


def agree(plain, ours) -> str:
    """Largest difference, relative to the largest value of the same tensor."""
    gaps = [((a - b).abs().max() / b.abs().max()).item() for a, b in zip(ours, plain, strict=True)]
    assert max(gaps) < 1e-5, f"the results differ by {max(gaps)}"
    return f"{max(gaps):.0e}" if max(gaps) else "equal"


def compare(label, run, per, repeats) -> str:
    ours = accelerated(run)
    gap = agree([x.clone() for x in run()], ours())
    times = rounds({"plain": run, "ours": ours}, repeats)
    seconds = {name: [x / per for x in values] for name, values in times.items()}
    return (
        f"| {label} | {gap} | {ms(seconds['plain'])} | {ms(seconds['ours'])} | "
        f"{ratio(times['plain'], times['ours'])} |"
    )


def main() -> None:
    parser(__doc__).parse_args()
    transformers.logging.set_verbosity_error()
    lines = [
        "# transformers on a CPU, with and without accelerate_transformers()",
        "",
        f"2 layers, d_model 256, batch 1, float32; training steps and prefill of {LENGTH} tokens,",
        f"`generate` of {NEW}. Command: `python benchmarks/accelerate_transformers.py`. Ratios are",
        "medians within rounds, with the middle half of them; above 1 ours is faster.",
        "",
        f"{machine()}, transformers {version('transformers')}",
    ]
    ids = torch.randint(0, 256, (1, LENGTH), generator=torch.Generator().manual_seed(1))
    for threads in (1, 2):
        torch.set_num_threads(threads)
        lines += [
            "",
            f"## Threads: {threads}",
            "",
            "| | largest gap | transformers, ms | with longstate, ms | ratio |",
            "| --- | --- | --- | --- | --- |",
        ]
        for name, model in models():
            slow = name == "Mamba"
            lines += [
                compare(f"{name}, training step", train(model, ids), 1, 4 if slow else 11),
                compare(f"{name}, prefill", prefill(model, ids), 1, 11),
                compare(f"{name}, a step with a cache", step(model, ids), NEW, 11),
                compare(f"{name}, a generated token", generate(model, ids), NEW, 11),
            ]
            print(*lines[-4:], sep="\n", flush=True)
    save("accelerate_transformers", "\n".join(lines))


if __name__ == "__main__":
    main()
