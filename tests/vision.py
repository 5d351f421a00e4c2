"""torchvision, also where its compiled part does not fit the PyTorch that is there: nets and layers are Python."""

import importlib
import importlib.util

import pytest


def torchvision():
    """Return the module, or skip the test."""
    torch = pytest.importorskip("torch")
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:  # an operator of the compiled part, box suppression and the like, is missing
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.library, "register_fake", lambda *args, **kwargs: lambda function: function)
            return importlib.import_module("torchvision")
