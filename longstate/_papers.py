"""The papers of the layers, as BibTeX."""

from typing import NamedTuple


class Paper(NamedTuple):
    """The fields of a BibTeX entry. `venue` is None where only the preprint is cited, `arxiv` where
    there is none; then `journal` has it."""

    key: str
    title: str
    authors: tuple[str, ...]
    year: int
    arxiv: str | None = None
    venue: str | None = None
    journal: str | None = None

    def bibtex(self) -> str:
        """The entry, ending without a newline."""
        fields = {
            "title": "{" + self.title + "}",
            "author": " and ".join(self.authors),
            "booktitle": self.venue,
            "journal": self.journal,
            "year": str(self.year),
            "eprint": self.arxiv,
            "archivePrefix": "arXiv" if self.arxiv else None,
        }
        kind = "article" if self.journal else "inproceedings" if self.venue else "misc"
        lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
        return "\n".join([f"@{kind}{{{self.key},", *lines, "}"])


_ICLR = "International Conference on Learning Representations"
_NEURIPS = "Advances in Neural Information Processing Systems"
_ICML = "International Conference on Machine Learning"

PAPERS = {
    "S4": Paper(
        "gu2022s4",
        "Efficiently Modeling Long Sequences with Structured State Spaces",
        ("Gu, Albert", "Goel, Karan", "R{\\'e}, Christopher"),
        2022,
        "2111.00396",
        _ICLR,
    ),
    "S4D": Paper(
        "gu2022s4d",
        "On the Parameterization and Initialization of Diagonal State Space Models",
        ("Gu, Albert", "Gupta, Ankit", "Goel, Karan", "R{\\'e}, Christopher"),
        2022,
        "2206.11893",
        _NEURIPS,
    ),
    "DSS": Paper(
        "gupta2022dss",
        "Diagonal State Spaces are as Effective as Structured State Spaces",
        ("Gupta, Ankit", "Gu, Albert", "Berant, Jonathan"),
        2022,
        "2203.14343",
        _NEURIPS,
    ),
    "S5": Paper(
        "smith2023s5",
        "Simplified State Space Layers for Sequence Modeling",
        ("Smith, Jimmy T. H.", "Warrington, Andrew", "Linderman, Scott W."),
        2023,
        "2208.04933",
        _ICLR,
    ),
    "Chimera": Paper(
        "behrouz2024chimera",
        "Chimera: Effectively Modeling Multivariate Time Series with 2-Dimensional State Space "
        "Models",
        ("Behrouz, Ali", "Santacatterina, Michele", "Zabih, Ramin"),
        2024,
        "2406.04320",
        _NEURIPS,
    ),
    "ConvS5": Paper(
        "smith2023convs5",
        "Convolutional State Space Models for Long-Range Spatiotemporal Modeling",
        (
            "Smith, Jimmy T. H.",
            "De Mello, Shalini",
            "Kautz, Jan",
            "Linderman, Scott W.",
            "Byeon, Wonmin",
        ),
        2023,
        "2310.19694",
        _NEURIPS,
    ),
    "HOPE": Paper(
        "yu2025hope",
        "HOPE for a Robust Parameterization of Long-memory State Space Models",
        ("Yu, Annan", "Mahoney, Michael W.", "Erichson, N. Benjamin"),
        2025,
        "2405.13975",
        _ICLR,
    ),
    "LinearCDE": Paper(
        "cirone2024deep",
        "Theoretical Foundations of Deep Selective State-Space Models",
        (
            "Muca Cirone, Nicola",
            "Orvieto, Antonio",
            "Walker, Benjamin",
            "Salvi, Cristopher",
            "Lyons, Terry",
        ),
        2024,
        "2402.19047",
        _NEURIPS,
    ),
    "Spiking": Paper(
        "bal2025pspikessm",
        "P-SpikeSSM: Harnessing Probabilistic Spiking State Space Models for Long-Range "
        "Dependency Tasks",
        ("Bal, Malyaban", "Sengupta, Abhronil"),
        2025,
        "2406.02923",
        _ICLR,
    ),
    "SMR": Paper(
        "qi2024smr",
        "SMR: State Memory Replay for Long Sequence Modeling",
        (
            "Qi, Biqing",
            "Gao, Junqi",
            "Zhang, Kaiyan",
            "Li, Dong",
            "Liu, Jianxing",
            "Wu, Ligang",
            "Zhou, Bowen",
        ),
        2024,
        "2405.17534",
        "Findings of the Association for Computational Linguistics: ACL 2024",
    ),
    "LinOSS": Paper(
        "rusch2025linoss",
        "Oscillatory State-Space Models",
        ("Rusch, T. Konstantin", "Rus, Daniela"),
        2025,
        "2410.03943",
        _ICLR,
    ),
    "Mamba": Paper(
        "gu2024mamba",
        "Mamba: Linear-Time Sequence Modeling with Selective State Spaces",
        ("Gu, Albert", "Dao, Tri"),
        2024,
        "2312.00752",
        "Conference on Language Modeling",
    ),
    "Mamba2": Paper(
        "dao2024mamba2",
        "Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured "
        "State Space Duality",
        ("Dao, Tri", "Gu, Albert"),
        2024,
        "2405.21060",
        _ICML,
    ),
    "Mamba3": Paper(
        "lahoti2026mamba3",
        "Mamba-3: Improved Sequence Modeling using State Space Principles",
        (
            "Lahoti, Aakash",
            "Li, Kevin Y.",
            "Chen, Berlin",
            "Wang, Caitlin",
            "Bick, Aviv",
            "Kolter, J. Zico",
            "Dao, Tri",
            "Gu, Albert",
        ),
        2026,
        "2603.15569",
    ),
    "FalconMamba": Paper(
        "zuo2024falconmamba",
        "Falcon Mamba: The First Competitive Attention-free 7B Language Model",
        (
            "Zuo, Jingwei",
            "Velikanov, Maksim",
            "Rhaiem, Dhia Eddine",
            "Chahed, Ilyas",
            "Belkada, Younes",
            "Kunsch, Guillaume",
            "Hacid, Hakim",
        ),
        2024,
        "2410.05355",
    ),
    "GatedSSM": Paper(
        "bhat2024memory",
        "Mathematical Formalism for Memory Compression in Selective State Space Models",
        ("Bhat, Siddhanth",),
        2024,
        "2410.03158",
    ),
    "Longhorn": Paper(
        "liu2024longhorn",
        "Longhorn: State Space Models are Amortized Online Learners",
        (
            "Liu, Bo",
            "Wang, Rui",
            "Wu, Lemeng",
            "Feng, Yihao",
            "Stone, Peter",
            "Liu, Qiang",
        ),
        2024,
        "2407.14207",
    ),
    "Attention": Paper(
        "vaswani2017attention",
        "Attention Is All You Need",
        (
            "Vaswani, Ashish",
            "Shazeer, Noam",
            "Parmar, Niki",
            "Uszkoreit, Jakob",
            "Jones, Llion",
            "Gomez, Aidan N.",
            "Kaiser, {\\L}ukasz",
            "Polosukhin, Illia",
        ),
        2017,
        "1706.03762",
        _NEURIPS,
    ),
    "Elman": Paper(
        "elman1990rnn",
        "Finding Structure in Time",
        ("Elman, Jeffrey L.",),
        1990,
        journal="Cognitive Science",
    ),
    "LSTM": Paper(
        "hochreiter1997lstm",
        "Long Short-Term Memory",
        ("Hochreiter, Sepp", 'Schmidhuber, J{\\"u}rgen'),
        1997,
        journal="Neural Computation",
    ),
    "GRU": Paper(
        "cho2014gru",
        "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine "
        "Translation",
        (
            "Cho, Kyunghyun",
            'van Merri{\\"e}nboer, Bart',
            "Gulcehre, Caglar",
            "Bahdanau, Dzmitry",
            "Bougares, Fethi",
            "Schwenk, Holger",
            "Bengio, Yoshua",
        ),
        2014,
        "1406.1078",
        "Conference on Empirical Methods in Natural Language Processing",
    ),
    "LongVQ": Paper(
        "liu2024longvq",
        "LongVQ: Long Sequence Modeling with Vector Quantization on Structured Memory",
        (
            "Liu, Zicheng",
            "Wang, Li",
            "Li, Siyuan",
            "Wang, Zedong",
            "Lin, Haitao",
            "Li, Stan Z.",
        ),
        2024,
        "2404.11163",
        "International Joint Conference on Artificial Intelligence",
    ),
    "TensorPower": Paper(
        "qiu2021tensorpower",
        "On the Memory Mechanism of Tensor-Power Recurrent Models",
        (
            "Qiu, Hejia",
            "Li, Chao",
            "Weng, Ying",
            "Sun, Zhun",
            "He, Xingyu",
            "Zhao, Qibin",
        ),
        2021,
        "2103.01521",
        "International Conference on Artificial Intelligence and Statistics",
    ),
    "CfC": Paper(
        "hasani2022cfc",
        "Closed-form Continuous-time Neural Networks",
        (
            "Hasani, Ramin",
            "Lechner, Mathias",
            "Amini, Alexander",
            "Liebenwein, Lucas",
            "Ray, Aaron",
            "Tschaikowski, Max",
            "Teschl, Gerald",
            "Rus, Daniela",
        ),
        2022,
        "2106.13898",
        journal="Nature Machine Intelligence",
    ),
    "GRUD": Paper(
        "che2018grud",
        "Recurrent Neural Networks for Multivariate Time Series with Missing Values",
        (
            "Che, Zhengping",
            "Purushotham, Sanjay",
            "Cho, Kyunghyun",
            "Sontag, David",
            "Liu, Yan",
        ),
        2018,
        "1606.01865",
        journal="Scientific Reports",
    ),
    "Timed": Paper(
        "li2024dygmamba",
        "DyG-Mamba: Continuous State Space Modeling on Dynamic Graphs",
        (
            "Li, Dongyuan",
            "Tan, Shiyin",
            "Zhang, Ying",
            "Jin, Ming",
            "Pan, Shirui",
            "Okumura, Manabu",
            "Jiang, Renhe",
        ),
        2024,
        "2408.06966",
    ),
    "HiPPO": Paper(
        "gu2020hippo",
        "HiPPO: Recurrent Memory with Optimal Polynomial Projections",
        ("Gu, Albert", "Dao, Tri", "Ermon, Stefano", "Rudra, Atri", "R{\\'e}, Christopher"),
        2020,
        "2008.07669",
        _NEURIPS,
    ),
}
