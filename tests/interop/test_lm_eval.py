"""A local task of lm-eval: the results of its `HFLM` equal those of the model itself."""

import json

import pytest
import torch

from longstate.models import generate
from tests.interop.samples import make

transformers = pytest.importorskip("transformers", reason="needs the extra 'hf'")
tokenizers = pytest.importorskip("tokenizers", reason="needs the extra 'text'")
pytest.importorskip("lm_eval", reason="pip install lm-eval runs this")

WORDS = ["<end>", *(f"w{i}" for i in range(1, 50))]
DOCS = [
    {"text": "w3 w9 w4", "choices": ["w1 w2", "w7"], "answer": 0},
    {"text": "w11", "choices": ["w30", "w31 w32 w33"], "answer": 1},
    {"text": "w40 w41 w42 w43 w44", "choices": ["w5", "w6"], "answer": 0},
]
MORE = 6  # tokens that are generated


@pytest.fixture
def model():
    return make("mamba", eos_tokens=(0,))


@pytest.fixture
def measured(model, tmp_path, monkeypatch):
    """lm-eval's results for two tasks on a file: the likelier choice, and what follows a text."""
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(variable, "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    from longstate.interop import LongstateForCausalLM

    rows = tmp_path / "docs.jsonl"
    rows.write_text("".join(json.dumps(doc) + "\n" for doc in DOCS))
    data = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(rows)}, "cache_dir": str(tmp_path / "cache")},
        "test_split": "test",
        "doc_to_text": "{{text}}",
    }
    choice = {
        **data, "task": "choice", "output_type": "multiple_choice", "doc_to_choice": "choices",
        "doc_to_target": "answer", "metric_list": [{"metric": "acc"}],
    }  # fmt: skip
    writing = {
        **data, "task": "writing", "output_type": "generate_until", "doc_to_target": "text",
        "generation_kwargs": {"until": ["w0"], "max_gen_toks": MORE, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    }  # fmt: skip
    language_model = HFLM(
        LongstateForCausalLM.from_longstate(model), backend="causal", tokenizer=words(),
        batch_size=3,
    )  # fmt: skip
    return simple_evaluate(language_model, tasks=[choice, writing], bootstrap_iters=0)


def words():
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    plain = tokenizers.Tokenizer(WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<end>"))
    plain.pre_tokenizer = WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, eos_token="<end>", pad_token="<end>", unk_token="<end>"
    )


def encode(text):
    return [WORDS.index(word) for word in text.split()]


def likelihood(model, text, choice):
    tokens = torch.tensor([encode(text) + encode(choice)])
    logs = model(tokens)[0][0, :-1].log_softmax(dim=-1)
    picked = logs.gather(1, tokens[0, 1:, None])[-len(encode(choice)) :]
    return picked.sum().item()


def test_a_local_task_measures_what_our_model_gives(model, measured):
    chosen = {s["doc_id"]: s for s in measured["samples"]["choice"]}
    right = 0
    for i, doc in enumerate(DOCS):
        own = [likelihood(model, doc["text"], choice) for choice in doc["choices"]]
        theirs = [float(answer[0]) for answer in chosen[i]["filtered_resps"]]
        torch.testing.assert_close(torch.tensor(theirs), torch.tensor(own))
        right += own.index(max(own)) == doc["answer"]
    assert measured["results"]["choice"]["acc,none"] == right / len(DOCS)

    written = {s["doc_id"]: s["filtered_resps"][0] for s in measured["samples"]["writing"]}
    own = generate(model, [encode(doc["text"]) for doc in DOCS], max_tokens=MORE)
    for i, row in enumerate(own):
        assert written[i].split() == [WORDS[token] for token in row.tokens]
    assert any(row.tokens for row in own)
