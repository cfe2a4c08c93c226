"""The forecaster in sktime: sktime's own checks, and what they do not ask."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]


def test_without_sktime_the_error_names_the_extra():
    code = (
        "import sys; sys.modules['sktime.forecasting.base'] = None\n"
        "import longstate\n"
        "try: longstate.adapters.SktimeForecaster\n"
        "except ImportError as e: print(e)"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert said.stdout.strip() == (
        "SktimeForecaster needs sktime: pip install 'longstate[sktime]'"
    ), said.stderr


class TestWithSktime:
    """Skipped without sktime."""

    pytestmark = pytest.mark.filterwarnings("ignore")  # remarks, and those of sktime

    @pytest.fixture(scope="class", autouse=True)
    def _sktime(self):
        pytest.importorskip("sktime", reason="needs the extra 'sktime'")

    def quick(self, **options):
        from longstate.adapters import SktimeForecaster

        return SktimeForecaster(**{**SktimeForecaster.get_test_params()[0], **options})

    def check(self, tests=None):
        from sktime.utils.estimator_checks import check_estimator

        found = check_estimator(type(self.quick()), tests_to_run=tests, verbose=False)
        return {name: result for name, result in found.items() if result != "PASSED"}, found

    def test_some_checks(self):
        some = ["test_constructor", "test_clone", "test_set_params", "test_pred_int_tag"]
        some += ["test_class_has_doctest_example", "test_fh_attribute", "test_cutoff"]
        failed, found = self.check(some)
        assert not failed
        assert len(found) > 10

    @pytest.mark.slow
    def test_all_checks(self):
        failed, found = self.check()
        assert not failed
        assert len(found) > 700

    def test_the_forecast_is_that_of_the_forecaster(self):
        from longstate import Forecaster

        times = pd.period_range("2020-01", periods=60, freq="M")
        y = pd.Series(np.sin(np.arange(60) / 2), times, name="sales")
        model = self.quick().fit(y, fh=[1, 3])
        own = Forecaster(
            3, quantiles=model.quantiles, size=model.size, training=model.training
        ).fit(y)
        expected = own.predict()
        found = model.predict()
        assert list(found.index) == [times[-1] + 1, times[-1] + 3]
        assert list(found) == list(expected["sales"][[0, 2]])
        bands = model.predict_interval(coverage=[0.9, 0.5])["sales"]
        for coverage, low, high in ((0.9, 0.05, 0.95), (0.5, 0.25, 0.75)):
            np.testing.assert_array_equal(
                bands[coverage].to_numpy(),
                expected.loc[[0, 2], [f"sales_q{low}", f"sales_q{high}"]],
            )

    def test_levels_between_are_ordered_and_levels_beyond_refused(self):
        from longstate.errors import InputError

        model = self.quick().fit(pd.Series(np.sin(np.arange(60) / 2)), fh=[1, 2])
        levels = [0.05, 0.1, 0.2, 0.5, 0.6, 0.95]
        found = model.predict_quantiles(alpha=levels).to_numpy()
        assert (np.diff(found) >= 0).all()
        with pytest.raises(InputError, match=r"0.01 is beyond the trained ones, from 0.05 to 0.95"):
            model.predict_quantiles(alpha=[0.01])
        with pytest.raises(InputError, match="quantiles must be two levels or more"):
            self.quick(quantiles=[0.5]).fit(pd.Series(np.arange(60.0)), fh=[1])

    def test_update_follows_the_new_rows(self):
        times = pd.date_range("2024-01-01", periods=80, freq="D")
        y = pd.Series(np.arange(80.0), times)
        model = self.quick().fit(y[:60], fh=[1, 2])
        trained = model.forecaster_
        model.update(y[60:], update_params=False)
        assert model.forecaster_ is trained
        assert abs(model.predict() - [80, 81]).max() < 10
        assert list(model.predict().index) == list(pd.date_range("2024-03-21", periods=2))
        model.update(y[70:], update_params=True)
        assert model.forecaster_ is not trained
        assert model.forecaster_.facts["seen_rows"] > trained.facts["seen_rows"]

    def test_known_columns_that_share_names_with_the_target(self):
        draw = np.random.default_rng(0)
        x = draw.integers(0, 2, 90).astype(float)
        y = pd.Series(5 * x + 0.1 * draw.normal(size=90), name="a")
        X = pd.DataFrame({"a": x, "time": 0.0})
        model = self.quick().fit(y[:80], X=X[:80], fh=[1, 2, 3])
        found = model.predict(X=X[80:83])
        assert abs(found - 5 * x[80:83]).max() < 2

    def test_empty_rows_at_the_end_are_forecast_over(self):
        times = pd.date_range("2024-01-01", periods=60, freq="D")
        y = pd.Series(np.arange(60.0), times)
        y.iloc[[20, 57, 58, 59]] = np.nan
        found = self.quick().fit(y, fh=[1, 2]).predict()
        assert list(found.index) == list(pd.date_range("2024-03-01", periods=2))
        assert abs(found - [60, 61]).max() < 10
