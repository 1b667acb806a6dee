"""Reading the lists of numbers in a pickled numpy array without running the pickle.

A pickle is a program: whoever loads it runs it. Here its instructions are read one by one, and only those are followed
that make numbers, texts, lists and tuples. Where it calls for a function or class, its name is noted and nothing is
called, so the worst that a hostile file can do is to be refused.
"""

import pickletools
from dataclasses import dataclass, field
from typing import Any

from distill3d.errors import CacheError

_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
_TEXTS = {"SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES", "SHORT_BINSTRING"}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NOTHING = {"PROTO", "FRAME", "STOP"}
_ARRAY_MAKERS = {
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
    "_codecs.encode",
}


@dataclass
class _Called:
    """What would have been a call: of what, with what, and the state given to the outcome."""

    what: Any
    arguments: Any
    state: Any = field(default=None)


def read_pickled_lists(data: bytes) -> list[Any]:
    """The items of a one-dimensional numpy array of objects, which may be numbers, texts, lists and tuples.

    Raises:
        CacheError: the pickle asks for anything else, or is damaged.
    """
    try:
        found = _follow(data)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise CacheError(f"the pickled masks cannot be read without running them ({error})") from error
    state = found.state if isinstance(found, _Called) else None
    if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[4], list):
        raise CacheError("the pickled masks are no array of lists")
    return state[4]


def _follow(data: bytes) -> Any:
    stack: list[Any] = []
    memory: list[Any] = []

    def since_mark() -> list[Any]:
        place = max(index for index, item in enumerate(stack) if item is _MARK)
        items = stack[place + 1 :]
        del stack[place:]
        return items

    argument: Any
    for code, argument, _ in pickletools.genops(data):
        name = code.name
        if name in _NOTHING:
            continue
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _NUMBERS or name in _TEXTS:
            stack.append(argument)
        elif name in _TUPLES:
            count = _TUPLES[name]
            items = stack[len(stack) - count :]
            del stack[len(stack) - count :]
            stack.append(tuple(items))
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "APPEND":
            item = stack.pop()
            stack[-1].append(item)
        elif name == "APPENDS":
            items = since_mark()
            stack[-1].extend(items)
        elif name == "MEMOIZE":
            memory.append(stack[-1])
        elif name in ("BINPUT", "LONG_BINPUT"):
            if argument != len(memory):
                raise ValueError("its memory is out of order")
            memory.append(stack[-1])
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memory[argument])
        elif name in ("STACK_GLOBAL", "GLOBAL"):
            if name == "GLOBAL":
                what = argument.replace(" ", ".")
            else:
                attribute, module = stack.pop(), stack.pop()
                what = f"{module}.{attribute}"
            if what not in _ARRAY_MAKERS:
                raise ValueError(f"it asks for {what}")
            stack.append(what)
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(_Called(stack.pop(), arguments))
        elif name == "BUILD":
            state = stack.pop()
            if not isinstance(stack[-1], _Called):
                raise ValueError("it changes what it did not make")
            stack[-1].state = state
        else:
            raise ValueError(f"it uses the instruction {name}")
    (found,) = stack
    return found
