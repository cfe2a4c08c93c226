"""Claims about series, about time, and about memory and cost in use."""

from dataclasses import replace
from functools import partial

from claim import ABSTRACT, CODE, KNOWN, NOTES, S4, S5, Claim
from verdicts import HIGHER, LOWER, Check, Figure, Rule

series = partial(Figure, studies="irregular", table="Scores on the test part")


def smr(layer: str, interval: str) -> Check:
    row = partial(Figure, studies="smr_rates", table="", row=layer, column=interval)
    times = "half" if interval == "0.5" else "twice"
    return Check(
        f"{layer} at {times} the interval: SMR lowers the error.", LOWER,
        (row("with SMR", also={"trained at": "one", "form": "product"}),
         row("alone", also={"trained at": "one", "form": "none"})),
    )  # fmt: skip


def errors(method: str) -> Figure:
    drawn = method != "last value"
    return Figure(method, "informer", "horizon 24", method, "mse", drawn=drawn)


def digits(model: str, column: str) -> Figure:
    return Figure(model, "moving_digits", "", model, column)


def text(layer: str, name: str) -> Check:
    row = partial(Figure, studies="smr_text", table="", row=layer, column="bits per byte")
    return Check(
        f"{name}: fewer bits per byte after equal time.", LOWER,
        (row("with SMR", also={"training": "SMR"}),
         row("alone", also={"training": "alone, equal time"})),
    )  # fmt: skip


def told(layer: str, interval: str, column: str) -> Check:
    row = partial(Figure, studies="smr_rates", table="", row=layer,
                  also={"trained at": "one", "form": "none"})  # fmt: skip
    times = "half" if interval == "0.5" else "twice"
    words = f"{layer} at {times} the interval: telling it lowers the error."
    return Check(words, LOWER, (row("told", column=column), row("not told", column=interval)))


TIME = (
    Claim(
        "S4 forecasts better than Informer",
        "On electricity transformer temperatures S4 has a lower error than Informer.",
        (S4,), KNOWN, ("informer.py ETTh1.csv",),
        (Check("Squared error.", LOWER, (errors("S4"), errors("Informer"))),),
        "Informer is that of neuralforecast. Both read two weeks and the calendar, and have five "
        "minutes on one thread; neither is tuned, and the validation error of S4 is least early in "
        "its training. After three minutes Informer was the worse one; the results say so. The "
        "last value is better than both.",
        (errors("last value"),),
    ),
    Claim(
        "Time stamps beat ignoring them",
        "On series at irregular times a layer that reads the times is better than one that takes "
        "them as regular.",
        (S5, ("Li et al., 2024", "2408.06966"),
         ("Hasani et al., 2022", "2106.13898")),
        CODE, ("irregular.py --sets remifentanil nafld",),
        (
            Check("S5 on remifentanil, error.", LOWER, (
                series("stamps read", row="S5, stamps", column="remifentanil"),
                series("ignored", row="S5, stamps ignored", column="remifentanil"))),
            Check("S5 on nafld, area under the curve.", HIGHER, (
                series("stamps read", row="S5, stamps", column="nafld"),
                series("ignored", row="S5, stamps ignored", column="nafld"))),
            Check("CfC against a GRU on remifentanil, error.", LOWER, (
                series("stamps read", row="CfC, stamps", column="remifentanil"),
                series("ignored", row="GRU, stamps ignored", column="remifentanil"))),
            Check("GRU-D against a GRU on nafld, area under the curve.", HIGHER, (
                series("stamps read", row="GRU-D, stamps", column="nafld"),
                series("ignored", row="GRU, stamps ignored", column="nafld"))),
        ),
        "Two small medical sets, where the papers use others.",
    ),
    Claim(
        "State Memory Replay helps at other sampling intervals",
        "A model trained at one interval and read at others makes errors that grow in its state. "
        "Scaling the input by recent inputs corrects this.",
        (("Qi et al., 2024", "2405.17534"),), NOTES, ("smr_rates.py",),
        tuple(smr(layer, interval) for layer in ("S4", "S5", "Mamba") for interval in ("0.5", "2")),
        "A reconstruction: neither equations nor code could be read. Reviews of an earlier form "
        "asked for a comparison with a rescaled step, which is the next claim.",
    ),
    Claim(
        "ConvS5 trains faster than a convolutional LSTM, and predicts further",
        "Trained on videos it is three times faster than a convolutional LSTM, and better at long "
        "predictions; it generates frames far faster than a Transformer.",
        (("Smith et al., 2023", "2310.19694"),), ABSTRACT, ("moving_digits.py FOLDER",),
        (
            Check("Milliseconds of a training step.", LOWER, (
                digits("ConvS5", "ms a training step"), digits("ConvLSTM", "ms a training step"))),
            Check("Error of frames behind those of the training length.", LOWER, (
                digits("ConvS5", "error, 11 to 30"), digits("ConvLSTM", "error, 11 to 30"))),
        ),
        "The gain is far from three times: one thread has no use for a scan that is parallel over "
        "time. Movies are short, frames small, and models hardly trained. There is no Transformer "
        "here; a frame that the convolutional LSTM generates is cheaper, because each step of a "
        "ConvS5 discretises again.",
        tuple(replace(digits(model, "ms a generated frame"), name=f"{model}, ms a generated frame")
              for model in ("ConvS5", "ConvLSTM")),
    ),
    Claim(
        "State Memory Replay helps to model text",
        "Language models learn better with it, and their training is not slower.",
        (("Qi et al., 2024", "2405.17534"),), NOTES, ("smr_text.py tinyshakespeare.txt",),
        (text("mamba", "Mamba"), text("s4d", "S4D")),
        "A reconstruction, and small models of bytes. A step takes a tenth longer with it, so the "
        "model without it has a tenth more steps. Mamba has a short convolution and a gate of its "
        "own, and S4D has neither.",
    ),
    Claim(
        "A rescaled step undoes a change of the sampling interval",
        "S4 and S5 run at another interval without training again if their step is rescaled.",
        (S4, S5), KNOWN, ("smr_rates.py",),
        tuple(told(layer, x, f"{x}, rate={x}") for layer in ("S4", "S5", "Mamba")
              for x in ("0.5", "2")),
        "Mamba is no linear system of continuous time, and is helped much less than S4 and S5.",
    ),
)  # fmt: skip

study = partial(Figure, studies="state_study")
METRIC = "metric (standard error)"


def against(
    table: str, words: str, rule: Rule, ours: str, theirs: str, column: str = METRIC
) -> Check:
    """A selective layer and a cell with as many parameters."""
    equal = {"equal": "parameters"}
    drawn = column == METRIC
    return Check(words, rule, (
        study(ours, table=table, row=ours, column=column, also=equal, drawn=drawn),
        study(theirs, table=table, row=theirs, column=column, also=equal, drawn=drawn),
    ))  # fmt: skip


BHAT = (
    Claim(
        "Selective models do more with less memory and time than recurrent networks",
        "Selective state space models reach better results than classical recurrent networks, in "
        "forecasting and in language, with less memory and computation.",
        (("Bhat, 2024", "2410.03158"),), ABSTRACT, ("state_study.py --data FOLDER --work FOLDER",),
        (
            against("recall", "Recall: more than an LSTM.", HIGHER, "mamba2", "lstm"),
            against("text", "Text: fewer bits per byte than a GRU.", LOWER, "mamba2", "gru"),
            against("elec", "Forecasting: a smaller error than a GRU.", LOWER, "mamba2", "gru"),
            against("Memory and time of one layer", "Memory of training: less than a GRU.", LOWER,
                    "longhorn", "gru", "training at 4096, MiB"),
            against("text", "Time of training: less than an LSTM.", LOWER, "longhorn", "lstm",
                    "CPU s"),
        ),
        "At equal numbers of parameters. The statements of the paper are looked at one by one on "
        "the page about [memory](memory.md#bhat-2024-statement-by-statement).",
    ),
)  # fmt: skip

CLAIMS = (*TIME, *BHAT)
