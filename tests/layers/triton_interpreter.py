"""Amendments to Triton's interpreter, for the processes that test kernels with it."""

from triton.runtime import interpreter


def amend():
    """Let the interpreter work with NumPy 2.4, and twice as fast."""
    interpreter._patch_lang_tensor = _indexable(interpreter._patch_lang_tensor)
    interpreter._patch_lang = _patched_once(interpreter._patch_lang)


def _indexable(patch_tensor):
    """NumPy 2.4 no longer turns an array of one element into an int, the bounds of a loop."""

    def patch(tensor, scope):
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    return patch


def _patched_once(patch_language):
    """Triton replaces its language anew in every call of a function that a kernel makes.

    Once in a launch is enough for the functions of one module.
    """
    scopes = {}

    def patch(fn):
        module = fn.__globals__["__name__"]
        if module not in scopes:
            scopes[module] = patch_language(fn)
            if len(scopes) == 1:
                scopes[module].restore = restore
        return scopes[module]

    def restore():
        for scope in reversed(scopes.values()):
            type(scope).restore(scope)
        scopes.clear()

    return patch
