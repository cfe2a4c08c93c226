"""What scikit-learn asks of an estimator, without scikit-learn: it is not a requirement here."""

import inspect
from typing import Any, TypeVar

from longstate.errors import InputError, near

Self = TypeVar("Self", bound="Estimator")


class Estimator:
    """Base of estimators: parameters are the arguments of the constructor, stored unchanged."""

    _kind = "classifier"

    @classmethod
    def _names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Name -> value of each argument of the constructor. `deep` changes nothing."""
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self: Self, **params: Any) -> Self:
        """Change arguments of the constructor; `fit` checks them.

        Raises:
            InputError: there is no such argument.
        """
        for name, value in params.items():
            if name not in self._names():
                kind = type(self).__name__
                raise InputError(f"{kind} has no parameter {name!r}; {near(name, self._names())}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        set_ = [f"{k}={v!r}" for k, v in self.get_params().items() if v != defaults[k].default]
        return f"{type(self).__name__}({', '.join(set_)})"

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, RegressorTags, Tags, TargetTags

        classifies = self._kind == "classifier"
        return Tags(
            estimator_type=self._kind,
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags() if classifies else None,
            regressor_tags=None if classifies else RegressorTags(),
            input_tags=InputTags(allow_nan=True, three_d_array=True),
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_channels_")

    def _check_fitted(self) -> None:
        """Raise scikit-learn's error where it is installed, which is a ValueError too."""
        if self.__sklearn_is_fitted__():
            return
        message = f"this {type(self).__name__} is not fitted yet; call fit first"
        try:
            from sklearn.exceptions import NotFittedError
        except ImportError:
            raise InputError(message) from None
        raise NotFittedError(message)
