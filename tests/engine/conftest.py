import pytest

from ion_d2.engine.trainer import IONTrainer


@pytest.fixture
def no_test(monkeypatch):
    """Skip the evaluation at the end of training."""
    monkeypatch.setattr(IONTrainer, "test", classmethod(lambda *a, **k: {}))
