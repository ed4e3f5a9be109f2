"""Acting around a module's calls as hooks do, in a form that torch.compile follows in every order.

As long as something intercepts it, a module is of a class made from its own, whose calls pass through the interceptors. It stays
the same object: its name, its weights, its hooks and what others hold of it are as they were. Compiled code is chosen by the
classes of its modules, while it looks for hooks only once, when it is made.

Interceptors are outermost: they see what a caller gives and before any hook's changes to it, and a hook sees the output before
theirs. A copy of an intercepted module, or a pickle, is one of the module as it was.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import nn

from ..errors import InputError

INTERCEPTORS = "_interceptors"


class Interceptor:
    """Sees the calls of a module. Code of its methods may be compiled, so they assign attributes and change nothing in place.

    Attributes:
        methods: by which the module is called.
        forward: a function of the module and its arguments in place of its own forward, which may compute several layers at once;
            None for that.
    """

    methods: tuple[str, ...] = ("__call__",)
    forward: Callable[..., object] | None = None

    def before(self, args: tuple, kwargs: dict) -> None:
        """Called with the arguments of a call that begins."""

    def after(self, args: tuple, kwargs: dict, output: object) -> object:
        """Called with the arguments and what the module returned, which it may take as its own; returns what the caller gets."""
        return output


class Interception:
    """An interceptor at work on a module, from the start until `remove`. Several of one module act in the order they came."""

    def __init__(self, module: nn.Module, interceptor: Interceptor) -> None:
        """Raises InputError for a module of TorchScript, whose class cannot be exchanged."""
        if isinstance(module, torch.jit.ScriptModule):
            raise InputError(f"{type(module).__name__} is a module of TorchScript, in which no pair acts: use the model without it.")
        self._module, self._interceptor = module, interceptor
        _intercept(module, (*vars(module).get(INTERCEPTORS, ()), interceptor))

    def remove(self) -> None:
        """Leaves the module as it was."""
        interceptors = list(vars(self._module)[INTERCEPTORS])
        # one alone of several that are the same: a model may call a block in two places
        del interceptors[next(index for index, one in enumerate(interceptors) if one is self._interceptor)]
        _intercept(self._module, tuple(interceptors))


def _intercept(module: nn.Module, interceptors: tuple[Interceptor, ...]) -> None:
    own, kind = vars(module), type(module)  # setting an attribute of a compiled module would set it on the one inside
    own[INTERCEPTORS] = interceptors
    is_made_here = _Intercepted in kind.__bases__
    if issubclass(kind, _Intercepted) and not is_made_here:
        return  # somebody else has changed the class since, and goes on to call what is left here
    kind = kind.__bases__[0] if is_made_here else kind
    if interceptors:
        methods = tuple(sorted({method for one in interceptors for method in one.methods}))
        module.__class__ = _intercepted(kind, methods, any(one.forward is not None for one in interceptors))
    else:
        module.__class__ = kind
        del own[INTERCEPTORS]


def _blank(kind: type[nn.Module]) -> nn.Module:
    """What a copy is made of, before it has its state."""
    return kind.__new__(kind)


class _Intercepted:
    """Marks the classes that `_intercepted` makes."""


@functools.cache
def _intercepted(kind: type[nn.Module], names: tuple[str, ...], has_forward: bool) -> type[nn.Module]:
    """A class made from a module's, under its name; the same one each time, as compiled code is chosen by it."""
    own_forward = kind.forward

    def forward(self: nn.Module, *args: object, **kwargs: object) -> object:
        for interceptor in getattr(self, INTERCEPTORS, ()):
            if interceptor.forward is not None:
                return interceptor.forward(self, *args, **kwargs)
        return own_forward(self, *args, **kwargs)

    def reduce(self: nn.Module, protocol: int) -> tuple:
        state = kind.__getstate__(self) if hasattr(kind, "__getstate__") else vars(self)  # no such method before Python 3.11
        return _blank, (kind,), {name: value for name, value in state.items() if name != INTERCEPTORS}

    attributes = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__, "__reduce_ex__": reduce}
    methods = {name: _seen(name, getattr(kind, name)) for name in names}
    return type(kind.__name__, (kind, _Intercepted), {**attributes, **methods, **({"forward": forward} if has_forward else {})})


def _seen(name: str, own: Callable[..., object]) -> Callable[..., object]:
    """A method whose calls pass through those interceptors that see it."""

    def call(self: nn.Module, *args: object, **kwargs: object) -> object:
        interceptors = getattr(self, INTERCEPTORS, ())  # compiled code may keep this function for longer than the module does
        for interceptor in interceptors:
            if name in interceptor.methods:
                interceptor.before(args, kwargs)
        output = own(self, *args, **kwargs)
        for interceptor in interceptors:
            if name in interceptor.methods:
                output = interceptor.after(args, kwargs, output)
        return output

    return call
