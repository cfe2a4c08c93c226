import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

from longstate import Forecaster
from longstate.errors import InputError
from longstate.train import ForecastEvaluation
from longstate.train._forecast import CHECKPOINT, MODEL
from tests.train.helpers import QUICK, TINY, hourly


def forecaster(horizon=4, **options):
    return Forecaster(horizon, **{"window": 30, "size": TINY, "training": QUICK, **options})


@pytest.fixture(scope="module")
def frame():
    return hourly()


@pytest.fixture(scope="module")
def fitted(frame):
    return forecaster().fit(frame, "y", covariates="x")


def test_predicts_the_rows_after_the_last(fitted, frame):
    forecast = fitted.predict(frame)
    assert list(forecast.columns) == ["date", "y", "y_q0.1", "y_q0.5", "y_q0.9"]
    last = pd.Timestamp(frame["date"].iloc[-1])
    assert list(forecast["date"]) == list(pd.date_range(last, periods=5, freq="h")[1:])
    assert forecast.notna().all().all()
    assert (forecast["y_q0.1"] <= forecast["y_q0.9"]).all()


def test_prediction_depends_on_the_last_window_only(fitted, frame):
    pd.testing.assert_frame_equal(
        fitted.predict(frame), fitted.predict(frame[-30:]), check_exact=True
    )


def test_evaluates_only_unseen_rows(fitted, frame):
    evaluation = fitted.evaluate(frame)
    assert evaluation.windows == 400 - 320 - 4 + 1
    assert evaluation.first == frame["date"][320]
    assert evaluation.last == frame["date"][399]
    assert [s.method for s in evaluation.scores] == [
        "model",
        "last value",
        "seasonal naive",
        "smoothing",
        "ridge",
        "line",
        "network",
    ]
    for score in evaluation.scores:
        assert np.isclose(np.mean(score.mse_by_step), score.mse)
    # A file that begins later is known by its times.
    assert fitted.evaluate(frame[250:]).windows == evaluation.windows


def test_scores_are_what_they_say(fitted, frame):
    evaluation = fitted.evaluate(frame)
    train = frame["y"][:280]
    errors = [frame["y"][o : o + 4].to_numpy() - frame["y"][o - 1] for o in range(320, 397)]
    expected = np.mean(np.square(errors)) / train.std(ddof=0) ** 2
    assert_close(evaluation.score("last value").mse, expected)
    example = evaluation.examples[0]
    assert example.truth == tuple(frame["y"][320:324])
    assert example.past == tuple(frame["y"][312:320])
    assert example.forecasts["last value"] == (frame["y"][319],) * 4
    assert example.times[8] == evaluation.first


def test_evaluation_survives_json(fitted, frame):
    holed = frame.copy()
    holed.loc[330:333, "y"] = np.nan
    evaluation = fitted.evaluate(holed)
    again = ForecastEvaluation.from_json(evaluation.to_json())
    assert again.to_json() == evaluation.to_json()
    assert again.verdict() == evaluation.verdict()
    assert len(again.verdict()) >= 6


def test_save_and_load(fitted, frame, tmp_path):
    fitted.save(tmp_path / "m.safetensors")
    loaded = Forecaster.load(tmp_path / "m.safetensors")
    pd.testing.assert_frame_equal(loaded.predict(frame), fitted.predict(frame), check_exact=True)
    assert loaded.evaluate(frame).to_json() == fitted.evaluate(frame).to_json()
    assert loaded.history.looks[1:] == fitted.history.looks[1:]
    assert loaded.size == TINY
    assert loaded.training == QUICK


def test_the_same_seed_is_the_same_model(fitted, frame):
    again = forecaster().fit(frame, "y", covariates="x")
    for name, tensor in again.model.state_dict().items():
        assert torch.equal(tensor, fitted.model.state_dict()[name]), name
    other = forecaster(seed=1).fit(frame, "y", covariates="x")
    assert not torch.equal(other.model.encode.weight, again.model.encode.weight)


def test_is_never_worse_than_ridge_on_validation(fitted):
    looks = fitted.history.looks
    assert min(look.validation_loss for look in looks) <= looks[0].validation_loss
    assert looks[0].step == 0


def test_learns_a_nonlinear_relation(tmp_path):
    """y is the square of something known in advance: ridge sees nothing, the model most of it."""
    from longstate.train import Size, Training

    frame = hourly(1500)
    frame["z"] = np.random.default_rng(0).standard_normal(1500)
    frame["y"] = frame["z"] ** 2
    model = Forecaster(
        8,
        window=8,
        quantiles=(),
        size=Size(d_model=16, n_layers=1, d_state=4, dropout=0.0),
        training=Training(epochs=6, learning_rate=1e-2, windows_per_epoch=1024, batch_size=32),
    )
    evaluation = model.fit(frame, "y", known="z", split=(0.6, 0.2, 0.2)).evaluate(frame)
    assert evaluation.beats_all()
    assert evaluation.score("model").mse < evaluation.score("ridge").mse / 2
    assert evaluation.chosen == "network"
    assert [s for s in evaluation.verdict() if "beats" not in s] == ["The model is network."]


def test_several_targets_known_columns_and_gaps(frame):
    holed = frame.copy()
    holed.loc[50:55, "y"] = np.nan
    holed.loc[340:342, ["x", "y"]] = np.nan
    model = forecaster().fit(holed, ["y", "x"], known="z")
    evaluation = model.evaluate(holed)
    assert {e.target for e in evaluation.examples} == {"y", "x"}
    assert "9 rows have a gap" in model.facts["notes"][0]
    assert all(np.isfinite([s.mse, s.mae]).all() for s in evaluation.scores)
    ahead = frame.copy()
    ahead.loc[396:, ["x", "y"]] = np.nan
    forecast = model.predict(ahead)
    assert list(forecast["date"].astype(str)) == list(frame["date"][396:])
    assert forecast.notna().all().all()


def test_known_values_must_reach_the_horizon(frame):
    model = forecaster().fit(frame, "y", known="z")
    with pytest.raises(
        InputError, match=r"needs 4 rows after the last target with 'z' filled; .* 0"
    ):
        model.predict(frame)


def test_without_times(frame):
    model = forecaster().fit(frame[["y"]], "y")
    assert model.model.spec.time is None
    assert list(model.predict(frame[["y"]])["row"]) == [400, 401, 402, 403]
    assert model.evaluate(frame[["y"]]).windows == 77
    assert model.evaluate(hourly(200, seed=7)[["y"]]).windows == 200 - 30 - 3


def test_a_date_index(frame):
    indexed = frame.set_index(pd.DatetimeIndex(frame["date"]))[["y"]]
    model = forecaster().fit(indexed, "y")
    assert list(model.predict(indexed)["date"]) == list(
        pd.date_range(indexed.index[-1], periods=5, freq="h")[1:]
    )


def test_constant_covariate_is_noted(frame):
    model = forecaster().fit(frame.assign(x=5.0), "y", covariates="x")
    assert model.facts["notes"] == [
        "Column 'x' is constant over the training part; it adds nothing."
    ]


def test_every_layer_can_be_used(frame):
    for layer in ("S4", "dss"):
        forecast = forecaster(layers=layer).fit(frame, "y").predict(frame)
        assert forecast.notna().all().all()


def test_a_stopped_training_is_continued(frame, tmp_path):
    class Stop(Exception):
        pass

    def show(progress):
        if progress.step == 6:
            raise Stop

    whole = forecaster().fit(frame, "y", out=tmp_path / "whole")
    with pytest.raises(Stop):
        forecaster().fit(frame, "y", out=tmp_path / "run", show=show)
    assert (tmp_path / "run" / CHECKPOINT).exists()
    assert not (tmp_path / "run" / MODEL).exists()
    again = forecaster().fit(frame, "y", out=tmp_path / "run")
    for name, tensor in again.model.state_dict().items():
        assert torch.equal(tensor, whole.model.state_dict()[name]), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "its seed is 0, here it is 1; choose another folder"),
        ({"layers": "s4"}, "its layers is s4d, here it is s4"),
        ({"window": 20}, "its window is 30, here it is 20"),
    ],
)
def test_another_run_s_folder_is_refused(change, message, frame, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "refused"
    if not folder.exists():
        forecaster().fit(frame, "y", out=folder)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(InputError, match=message):
        forecaster(**change).fit(frame, "y", out=folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_other_data_in_the_same_folder_is_refused(frame, tmp_path):
    forecaster().fit(frame, "y", out=tmp_path)
    with pytest.raises(InputError, match="its data is"):
        forecaster().fit(hourly(seed=1), "y", out=tmp_path)


WRONG = {
    "horizon": (lambda f: forecaster(0), "horizon must be a whole number of at least 1; got 0"),
    "window": (
        lambda f: forecaster(window=-1),
        "window must be a whole number of at least 1; got -1",
    ),
    "quantiles": (
        lambda f: forecaster(quantiles=(0.1, 1.5)),
        "quantiles must be different numbers",
    ),
    "layer": (lambda f: forecaster(layers="rwkv"), "there is no layer 'rwkv'"),
    "not fitted": (lambda f: forecaster().predict(f), "not fitted yet; call fit first"),
    "constant": (
        lambda f: forecaster().fit(f.assign(y=1.0), "y"),
        "'y' is constant over the training",
    ),
    "short": (
        lambda f: forecaster().fit(f[:40], "y"),
        "the data has 40 rows, of which the training",
    ),
    "very short": (lambda f: Forecaster(4).fit(f[:6], "y"), "the data has 6 rows"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_refused_with_one_sentence(case, frame):
    call, message = WRONG[case]
    with pytest.raises(InputError, match=message) as error:
        call(frame)
    assert "\n" not in str(error.value)


def test_a_fitted_forecaster_refuses_bad_input(fitted, frame):
    with pytest.raises(InputError, match="needs the last 30 rows; the data has 29"):
        fitted.predict(frame[-29:])
    with pytest.raises(InputError, match="needs 4 rows after 2024-01-14 07:00:00"):
        fitted.evaluate(frame[:322])
    with pytest.raises(InputError, match="no column 'x'"):
        fitted.predict(frame[["date", "y"]])
    with pytest.raises(InputError, match="'date' has no two rows one step"):
        fitted.predict(frame[::2])
