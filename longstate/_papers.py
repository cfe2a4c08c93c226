"""The papers of the layers, as BibTeX."""

from typing import NamedTuple


class Paper(NamedTuple):
    """The fields of a BibTeX entry. `venue` is None where only the preprint is cited, `arxiv` where
    there is none; then `journal` has it."""

    key: str
    title: str
    authors: str
    year: int
    arxiv: str | None = None
    venue: str | None = None
    journal: str | None = None

    def bibtex(self) -> str:
        """The entry, ending without a newline."""
        fields = {
            "title": "{" + self.title + "}",
            "author": self.authors,
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
        "Gu, Albert and Goel, Karan and R{\\'e}, Christopher",
        2022,
        "2111.00396",
        _ICLR,
    ),
    "S4D": Paper(
        "gu2022s4d",
        "On the Parameterization and Initialization of Diagonal State Space Models",
        "Gu, Albert and Gupta, Ankit and Goel, Karan and R{\\'e}, Christopher",
        2022,
        "2206.11893",
        _NEURIPS,
    ),
    "DSS": Paper(
        "gupta2022dss",
        "Diagonal State Spaces are as Effective as Structured State Spaces",
        "Gupta, Ankit and Gu, Albert and Berant, Jonathan",
        2022,
        "2203.14343",
        _NEURIPS,
    ),
    "S5": Paper(
        "smith2023s5",
        "Simplified State Space Layers for Sequence Modeling",
        "Smith, Jimmy T. H. and Warrington, Andrew and Linderman, Scott W.",
        2023,
        "2208.04933",
        _ICLR,
    ),
    "Chimera": Paper(
        "behrouz2024chimera",
        "Chimera: Effectively Modeling Multivariate Time Series with 2-Dimensional State Space "
        "Models",
        "Behrouz, Ali and Santacatterina, Michele and Zabih, Ramin",
        2024,
        "2406.04320",
        _NEURIPS,
    ),
    "ConvS5": Paper(
        "smith2023convs5",
        "Convolutional State Space Models for Long-Range Spatiotemporal Modeling",
        "Smith, Jimmy T. H. and De Mello, Shalini and Kautz, Jan and Linderman, Scott W. "
        "and Byeon, Wonmin",
        2023,
        "2310.19694",
        _NEURIPS,
    ),
    "HOPE": Paper(
        "yu2025hope",
        "HOPE for a Robust Parameterization of Long-memory State Space Models",
        "Yu, Annan and Mahoney, Michael W. and Erichson, N. Benjamin",
        2025,
        "2405.13975",
        _ICLR,
    ),
    "LinearCDE": Paper(
        "cirone2024deep",
        "Theoretical Foundations of Deep Selective State-Space Models",
        "Muca Cirone, Nicola and Orvieto, Antonio and Walker, Benjamin and Salvi, "
        "Cristopher and Lyons, Terry",
        2024,
        "2402.19047",
        _NEURIPS,
    ),
    "Spiking": Paper(
        "bal2025pspikessm",
        "P-SpikeSSM: Harnessing Probabilistic Spiking State Space Models for Long-Range "
        "Dependency Tasks",
        "Bal, Malyaban and Sengupta, Abhronil",
        2025,
        "2406.02923",
        _ICLR,
    ),
    "SMR": Paper(
        "qi2024smr",
        "SMR: State Memory Replay for Long Sequence Modeling",
        "Qi, Biqing and Gao, Junqi and Zhang, Kaiyan and Li, Dong and Liu, Jianxing and "
        "Wu, Ligang and Zhou, Bowen",
        2024,
        "2405.17534",
        "Findings of the Association for Computational Linguistics: ACL 2024",
    ),
    "LinOSS": Paper(
        "rusch2025linoss",
        "Oscillatory State-Space Models",
        "Rusch, T. Konstantin and Rus, Daniela",
        2025,
        "2410.03943",
        _ICLR,
    ),
    "Mamba": Paper(
        "gu2024mamba",
        "Mamba: Linear-Time Sequence Modeling with Selective State Spaces",
        "Gu, Albert and Dao, Tri",
        2024,
        "2312.00752",
        "Conference on Language Modeling",
    ),
    "Mamba2": Paper(
        "dao2024mamba2",
        "Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured "
        "State Space Duality",
        "Dao, Tri and Gu, Albert",
        2024,
        "2405.21060",
        _ICML,
    ),
    "Mamba3": Paper(
        "lahoti2026mamba3",
        "Mamba-3: Improved Sequence Modeling using State Space Principles",
        "Lahoti, Aakash and Li, Kevin Y. and Chen, Berlin and Wang, Caitlin and Bick, "
        "Aviv and Kolter, J. Zico and Dao, Tri and Gu, Albert",
        2026,
        "2603.15569",
    ),
    "FalconMamba": Paper(
        "zuo2024falconmamba",
        "Falcon Mamba: The First Competitive Attention-free 7B Language Model",
        "Zuo, Jingwei and Velikanov, Maksim and Rhaiem, Dhia Eddine and Chahed, Ilyas and "
        "Belkada, Younes and Kunsch, Guillaume and Hacid, Hakim",
        2024,
        "2410.05355",
    ),
    "GatedSSM": Paper(
        "bhat2024memory",
        "Mathematical Formalism for Memory Compression in Selective State Space Models",
        "Bhat, Siddhanth",
        2024,
        "2410.03158",
    ),
    "Longhorn": Paper(
        "liu2024longhorn",
        "Longhorn: State Space Models are Amortized Online Learners",
        "Liu, Bo and Wang, Rui and Wu, Lemeng and Feng, Yihao and Stone, Peter and Liu, Qiang",
        2024,
        "2407.14207",
    ),
    "Attention": Paper(
        "vaswani2017attention",
        "Attention Is All You Need",
        "Vaswani, Ashish and Shazeer, Noam and Parmar, Niki and Uszkoreit, Jakob and "
        "Jones, Llion and Gomez, Aidan N. and Kaiser, {\\L}ukasz and Polosukhin, Illia",
        2017,
        "1706.03762",
        _NEURIPS,
    ),
    "Elman": Paper(
        "elman1990rnn",
        "Finding Structure in Time",
        "Elman, Jeffrey L.",
        1990,
        journal="Cognitive Science",
    ),
    "LSTM": Paper(
        "hochreiter1997lstm",
        "Long Short-Term Memory",
        'Hochreiter, Sepp and Schmidhuber, J{\\"u}rgen',
        1997,
        journal="Neural Computation",
    ),
    "GRU": Paper(
        "cho2014gru",
        "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine "
        "Translation",
        'Cho, Kyunghyun and van Merri{\\"e}nboer, Bart and Gulcehre, Caglar and Bahdanau, '
        "Dzmitry and Bougares, Fethi and Schwenk, Holger and Bengio, Yoshua",
        2014,
        "1406.1078",
        "Conference on Empirical Methods in Natural Language Processing",
    ),
    "LongVQ": Paper(
        "liu2024longvq",
        "LongVQ: Long Sequence Modeling with Vector Quantization on Structured Memory",
        "Liu, Zicheng and Wang, Li and Li, Siyuan and Wang, Zedong and Lin, Haitao and Li, Stan Z.",
        2024,
        "2404.11163",
        "International Joint Conference on Artificial Intelligence",
    ),
    "TensorPower": Paper(
        "qiu2021tensorpower",
        "On the Memory Mechanism of Tensor-Power Recurrent Models",
        "Qiu, Hejia and Li, Chao and Weng, Ying and Sun, Zhun and He, Xingyu and Zhao, Qibin",
        2021,
        "2103.01521",
        "International Conference on Artificial Intelligence and Statistics",
    ),
    "CfC": Paper(
        "hasani2022cfc",
        "Closed-form Continuous-time Neural Networks",
        "Hasani, Ramin and Lechner, Mathias and Amini, Alexander and Liebenwein, Lucas "
        "and Ray, Aaron and Tschaikowski, Max and Teschl, Gerald and Rus, Daniela",
        2022,
        "2106.13898",
        journal="Nature Machine Intelligence",
    ),
    "GRUD": Paper(
        "che2018grud",
        "Recurrent Neural Networks for Multivariate Time Series with Missing Values",
        "Che, Zhengping and Purushotham, Sanjay and Cho, Kyunghyun and Sontag, David and Liu, Yan",
        2018,
        "1606.01865",
        journal="Scientific Reports",
    ),
    "Timed": Paper(
        "li2024dygmamba",
        "DyG-Mamba: Continuous State Space Modeling on Dynamic Graphs",
        "Li, Dongyuan and Tan, Shiyin and Zhang, Ying and Jin, Ming and Pan, Shirui and "
        "Okumura, Manabu and Jiang, Renhe",
        2024,
        "2408.06966",
    ),
    "HiPPO": Paper(
        "gu2020hippo",
        "HiPPO: Recurrent Memory with Optimal Polynomial Projections",
        "Gu, Albert and Dao, Tri and Ermon, Stefano and Rudra, Atri and R{\\'e}, Christopher",
        2020,
        "2008.07669",
        _NEURIPS,
    ),
}
