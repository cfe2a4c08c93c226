"""`load` opens every file and folder that a command or a `save` wrote; `save` writes a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from longstate._files import missing
from longstate._formats import refuse_converted
from longstate.errors import InputError

if TYPE_CHECKING:
    from longstate.layers import Layer
    from longstate.models import ForecastModel, LanguageModel
    from longstate.train import Classifier, Forecaster, Regressor, TextModel

    Saved: TypeAlias = (
        Forecaster | Classifier | Regressor | TextModel | LanguageModel | ForecastModel | Layer
    )

MODEL, CONFIG = "model.safetensors", "config.json"
_NO_MODEL = {
    "training": "a checkpoint of a training; train again with the same settings to continue",
    "state": "a state; longstate.stream.load_state reads it, given the model it belongs to",
}


def load(path: str | Path) -> "Saved":
    """The model in a file or folder, in evaluation mode, on the CPU.

    Args:
        path: a folder that `longstate train` wrote, or its `model.safetensors`; a file that `save`
            of a `Forecaster`, `Classifier`, `Regressor`, `TextModel`, `LanguageModel` or
            `ForecastModel` wrote, or `longstate.save` of a layer; or a folder with a checkpoint of
            transformers or mamba-ssm.

    Returns:
        The object that was saved. For folders of `longstate train` it is a `Forecaster`, a
        `Classifier` or a `TextModel`; for a checkpoint of another library a `LanguageModel`.

    Raises:
        InputError: the path does not exist, is damaged, or holds no model.
    """
    from longstate._tensorfile import kind_of

    path = Path(path)
    if not path.exists():
        raise missing(path, "run or checkpoint")
    file = path / MODEL if path.is_dir() else path
    if file.name == CONFIG:
        path = path.parent
    elif (kind := kind_of(file)) is not None:
        return _load(file, kind, path)
    folder = path if path.is_dir() else path.parent
    if (folder / CONFIG).is_file() and (
        path.is_dir() or file.name.endswith((".safetensors", ".bin"))
    ):
        return _checkpoint(folder)
    if (folder / "checkpoint.safetensors").is_file() and path.is_dir():
        raise InputError(
            f"{path} holds a training that has not written a model yet (there is no {MODEL}); run "
            "the same command again to continue"
        )
    refuse_converted(path)
    what = "a file of longstate's" if path.is_file() else f"a run (it holds no {MODEL})"
    raise InputError(
        f"{path} is neither {what} nor a checkpoint (there is no {CONFIG} of a language model)"
    )


def _load(file: Path, kind: str, path: Path) -> Any:
    if kind == "forecaster":
        from longstate.train import Forecaster

        return Forecaster.load(file)
    if kind in ("classifier", "regressor"):
        from longstate.train import Classifier, Regressor

        return (Classifier if kind == "classifier" else Regressor).load(file)
    if kind in ("language", "model"):
        from longstate._tensorfile import facts_of
        from longstate.models import LanguageModel
        from longstate.train import TextModel

        has_tokens = "tokens" in facts_of(file)
        return TextModel.load(file) if has_tokens else LanguageModel.load(file)
    if kind == "forecast model":
        from longstate.models import ForecastModel

        return ForecastModel.load(file)
    if kind == "layer":
        from longstate.models import load_layer

        return load_layer(file)
    raise InputError(f"{path} holds {_NO_MODEL.get(kind, f'a {kind}; a model was expected')}")


def _checkpoint(folder: Path) -> "LanguageModel":
    """Load a checkpoint of transformers or mamba-ssm, also one of a longstate model."""
    from longstate.interop import load_language_model
    from longstate.interop.checkpoints.weights import read_json
    from longstate.models._saving import finite

    if read_json(folder / CONFIG).get("model_type") != "longstate":
        return load_language_model(folder)
    try:
        from longstate.interop import LongstateForCausalLM
    except ImportError:
        raise InputError(
            f"{folder} was written by transformers, which is not installed; pip install "
            "'longstate[hf]' brings it"
        ) from None
    try:
        model = LongstateForCausalLM.from_pretrained(folder).to_longstate().eval()
    except Exception as e:  # the library raises many kinds of errors
        reason = str(e).partition("\n")[0][:200] or type(e).__name__
        raise InputError(f"{folder} cannot be loaded: {reason}") from None
    for name, tensor in model.state_dict().items():
        if not finite(tensor):
            raise InputError(f"{folder}: {name} holds numbers that are not finite")
    return model


def save(thing: "Saved", path: str | Path) -> None:
    """Write a model or a layer to one safetensors file; `load` reads it.

    Args:
        thing: what `load` returns.
        path: the file. It is written atomically.

    Raises:
        InputError: it cannot be saved, or the file cannot be written.
    """
    from longstate.layers import Layer
    from longstate.models import ForecastModel, LanguageModel, save_layer
    from longstate.train import Classifier, Forecaster, Regressor, TextModel

    if isinstance(thing, Layer):
        save_layer(thing, path)
    elif isinstance(
        thing, Forecaster | Classifier | Regressor | TextModel | LanguageModel | ForecastModel
    ):
        thing.save(path)
    else:
        raise InputError(
            f"longstate cannot save a {type(thing).__name__}; a Forecaster, a Classifier, a "
            "Regressor, a TextModel, a LanguageModel, a ForecastModel or a layer was expected"
        )
