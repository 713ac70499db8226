"""Calls between two processes that do not trust each other: plain values by copy, the rest as handles.

In: a connected socket. Out: `Line`, which sends, receives and serves; `Exporter`, which encodes values as JSON and
keeps the objects behind the handles it gave out; `Remote`, what a handle looks like on the other side.
"""

import array
import builtins
import collections
import datetime
import decimal
import fractions
import json
import operator
import struct
import sys

LARGEST_MESSAGE = 64 << 20
LARGEST_JSON_INT = 1 << 4096


class RemoteError(Exception):
    """Something that the other side raised and that is no built-in exception."""

    def __init__(self, kind: str, text: str):
        super().__init__(text)
        self.kind = kind


class Gone(BaseException):
    """The other side has ended."""


class Exporter:
    """Encodes values; an object that is no plain value becomes a handle, which only this side can open."""

    def __init__(self, *, open_objects: bool):
        self.open_objects = open_objects  # may the other side use any attribute, or only call and read public ones?
        self.objects: dict[int, object] = {}
        self.known: dict[int, int] = {}

    def encode(self, value):
        if value is None or value is True or value is False:
            return value
        kind = type(value)
        if kind is str or kind is float:
            return value
        if isinstance(value, int):
            return int(value) if -LARGEST_JSON_INT < value < LARGEST_JSON_INT else ["int", hex(value)]
        if isinstance(value, float):
            return float(value)
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, Remote):
            return ["yours", value._handle]
        if isinstance(value, list):
            return ["list", [self.encode(item) for item in list.__iter__(value)]]
        if isinstance(value, tuple):
            return ["tuple", [self.encode(item) for item in tuple.__iter__(value)]]
        if isinstance(value, dict):
            name = kind.__name__ if kind in (collections.OrderedDict, collections.Counter) else "dict"
            return [name, [[self.encode(k), self.encode(v)] for k, v in dict.items(value)]]
        return self.encode_rare(value)

    def encode_rare(self, value):
        for name, (kind, take, _) in RARE.items():
            if isinstance(value, kind):
                return [name, self.encode(take(value))]
        if hasattr(value, "tolist") and hasattr(value, "dtype"):  # numpy
            return (
                self.encode(value.tolist())
                if not getattr(value, "shape", ())
                else ["list", self.encode(list(value))[1]]
            )
        if isinstance(value, type) and getattr(builtins, value.__name__, None) is value:
            return ["builtin", value.__name__]
        return ["mine", self.export(value), callable(value)]

    def export(self, value) -> int:
        handle = self.known.get(id(value))
        if handle is None:
            handle = len(self.objects)
            self.objects[handle], self.known[id(value)] = value, handle
        return handle

    def decode(self, data, line: "Line"):
        if not isinstance(data, list):
            return data
        tag, body = data[0], data[1]
        if tag == "list":
            return [self.decode(item, line) for item in body]
        if tag == "tuple":
            return tuple([self.decode(item, line) for item in body])
        if tag in ("dict", "OrderedDict", "Counter"):
            make = dict if tag == "dict" else getattr(collections, tag)
            return make({self.decode(k, line): self.decode(v, line) for k, v in body})
        if tag == "int":
            return int(body, 16)
        if tag == "mine":
            return Remote(line, int(body))
        if tag == "yours":
            return self.objects[body]
        if tag == "builtin":
            found = getattr(builtins, body)
            assert isinstance(found, type)
            return found
        return RARE[tag][2](self.decode(body, line))


# name: (type, its parts as plain values, made again from them); isinstance is tried in this order
RARE = {
    "set": (set, list, set),
    "frozenset": (frozenset, list, frozenset),
    "complex": (complex, lambda c: [complex(c).real, complex(c).imag], lambda p: complex(*p)),
    "bytes": (bytes, lambda b: bytes(b).hex(), bytes.fromhex),
    "bytearray": (bytearray, lambda b: bytes(b).hex(), bytearray.fromhex),
    "range": (range, lambda r: [r.start, r.stop, r.step], lambda p: range(*p)),
    "slice": (slice, lambda s: [s.start, s.stop, s.step], lambda p: slice(*p)),
    "deque": (collections.deque, list, collections.deque),
    "array": (array.array, lambda a: [a.typecode, a.tolist()], lambda p: array.array(*p)),
    "Decimal": (decimal.Decimal, str, decimal.Decimal),
    "Fraction": (fractions.Fraction, lambda f: [f.numerator, f.denominator], lambda p: fractions.Fraction(*p)),
    "timedelta": (
        datetime.timedelta,
        lambda d: [d.days, d.seconds, d.microseconds],
        lambda p: datetime.timedelta(*p),
    ),
    "datetime": (datetime.datetime, lambda d: d.isoformat(), datetime.datetime.fromisoformat),
    "date": (datetime.date, lambda d: d.isoformat(), datetime.date.fromisoformat),
    "time": (datetime.time, lambda d: d.isoformat(), datetime.time.fromisoformat),
    "dict_keys": (type({}.keys()), list, lambda p: dict.fromkeys(p).keys()),
    "dict_values": (type({}.values()), list, lambda p: dict(enumerate(p)).values()),
    "dict_items": (type({}.items()), list, lambda p: dict(p).items()),
}


class Remote:
    """A handle on an object of the other side.

    Operators ask the other side only where both operands are its own: what it would say of `result - 3` or of
    `result == 3` is no evidence, whereas two objects of its own it could as well have made equal.
    """

    __slots__ = ("_line", "_handle")

    def __init__(self, line: "Line", handle: int):
        object.__setattr__(self, "_line", line)
        object.__setattr__(self, "_handle", handle)

    def __call__(self, *args, **kwargs):
        return self._line.call(self._handle, "__call__", args, kwargs)

    def __getattr__(self, name):
        return self._line.ask({"get": name, "of": self._handle})

    def __setattr__(self, name, value):
        self._line.ask({"set": name, "of": self._handle, "to": self._line.exporter.encode(value)})

    def __iter__(self):
        return self._line.call(self._handle, "__iter__", (), {})

    def __next__(self):
        return self._line.call(self._handle, "__next__", (), {})

    def __len__(self):
        return self._line.call(self._handle, "__len__", (), {})

    def __bool__(self):
        return self._line.call(self._handle, "__bool__", (), {}) is True

    def __getitem__(self, key):
        return self._line.call(self._handle, "__getitem__", (key,), {})

    def __setitem__(self, key, value):
        return self._line.call(self._handle, "__setitem__", (key, value), {})

    def __contains__(self, key):
        return self._line.call(self._handle, "__contains__", (key,), {}) is True

    def __str__(self):
        text = self._line.call(self._handle, "__str__", (), {})
        return text if isinstance(text, str) else ""

    __repr__ = __str__

    def __eq__(self, other):
        return isinstance(other, Remote) and self._line.call(self._handle, "__eq__", (other,), {}) is True

    def __hash__(self):
        return hash(self._handle)

    def __instancecheck__(self, instance):
        return isinstance(instance, Remote) and self._line.call(self._handle, "isinstance", (instance,), {}) is True


BINARY = ("lt", "le", "gt", "ge", "add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "and_", "or_", "xor")


def _operate(name: str):
    def method(self, other):
        return self._line.call(self._handle, name, (other,), {}) if isinstance(other, Remote) else NotImplemented

    return method


for _name in BINARY:
    setattr(Remote, f"__{_name.rstrip('_')}__", _operate(f"__{_name.rstrip('_')}__"))


class Line:
    """One end of the socket: asks, and answers what it is asked meanwhile."""

    def __init__(self, sock, exporter: Exporter):
        self.sock, self.exporter, self.exchanges = sock, exporter, 0

    def send(self, message: dict) -> None:
        data = json.dumps(message).encode("utf-8", "surrogatepass")
        try:
            self.sock.sendall(struct.pack("<I", len(data)) + data)
        except OSError as error:
            raise Gone(str(error)) from None

    def receive(self) -> dict:
        (size,) = struct.unpack("<I", self.read(4))
        if size > LARGEST_MESSAGE:
            raise Gone("message too large")
        message = json.loads(self.read(size).decode("utf-8", "surrogatepass"))
        if not isinstance(message, dict):
            raise Gone("no message")
        return message

    def read(self, size: int) -> bytes:
        parts = []
        while size:
            part = self.sock.recv(min(size, 1 << 16))
            if not part:
                raise Gone("the program ended before its tests did")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def call(self, handle: int, method: str, args: tuple, kwargs: dict):
        """Call there; lists and the like that the call changed are changed here as well."""
        encoded = [self.exporter.encode(arg) for arg in args]
        names = {name: self.exporter.encode(value) for name, value in kwargs.items()}
        reply = self.exchange({"call": method, "of": handle, "args": encoded, "kwargs": names})
        for place, data in reply.get("changed", []):
            put_back(args[place], self.exporter.decode(data, self))
        return self.exporter.decode(reply["value"], self)

    def ask(self, message: dict):
        return self.exporter.decode(self.exchange(message)["value"], self)

    def exchange(self, message: dict) -> dict:
        self.exchanges += 1
        self.send(message)
        while True:
            reply = self.receive()
            if "value" in reply:
                return reply
            if "error" in reply:
                raise revive(reply["error"], reply["text"])
            self.send(self.perform(reply))

    def serve(self) -> None:
        """Answer until the other side hangs up."""
        while True:
            try:
                request = self.receive()
            except Gone:
                return
            self.send(self.perform(request))

    def perform(self, request: dict) -> dict:
        """Do what the other side asks with an object of ours."""
        try:
            target = self.exporter.objects[request["of"]]
            if "call" in request:
                return self.perform_call(target, request)
            name = request["get"] if "get" in request else request["set"]
            if not self.exporter.open_objects and (name.startswith("_") or isinstance(target, type(sys))):
                raise AttributeError(name)
            if "get" in request:
                return {"value": self.exporter.encode(getattr(target, name))}
            if not self.exporter.open_objects and (isinstance(target, type) or callable(target)):
                raise AttributeError(name)
            setattr(target, name, self.exporter.decode(request["to"], self))
            return {"value": None}
        except Gone:
            raise
        except BaseException as error:
            return {"error": type(error).__name__, "text": safe_text(error)}

    def perform_call(self, target, request: dict) -> dict:
        args = [self.exporter.decode(data, self) for data in request["args"]]
        kwargs = {name: self.exporter.decode(data, self) for name, data in request["kwargs"].items()}
        method = request["call"]
        if not self.exporter.open_objects and method not in ("__call__", "__iter__", "__next__", "__len__"):
            raise AttributeError(method)
        if method == "__call__":
            value = target(*args, **kwargs)
        elif method in SPECIAL:
            value = SPECIAL[method](target, *args)
        else:
            value = getattr(target, method)(*args, **kwargs)
        reply = {"value": self.exporter.encode(value)}
        after = [[i, self.exporter.encode(arg)] for i, arg in enumerate(args) if isinstance(arg, MUTABLE)]
        changed = [[i, data] for i, data in after if data != request["args"][i]]
        return {**reply, "changed": changed} if changed else reply


MUTABLE = (list, dict, set, bytearray, collections.deque)
SPECIAL = {
    **{f"__{name.rstrip('_')}__": getattr(operator, name) for name in BINARY},
    "__eq__": operator.eq,
    "isinstance": lambda cls, instance: isinstance(instance, cls),
    "__iter__": iter,
    "__next__": next,
    "__len__": len,
    "__bool__": bool,
    "__str__": str,
    "__getitem__": lambda o, k: o[k],
    "__contains__": lambda o, k: k in o,
    "__setitem__": lambda o, k, v: o.__setitem__(k, v),
}


def put_back(argument, changed) -> None:
    """Give a container of ours the contents that its copy has after the call."""
    if isinstance(argument, (list, bytearray)):
        argument[:] = changed
    elif isinstance(argument, (dict, set)):
        argument.clear()
        argument.update(changed)
    elif isinstance(argument, collections.deque):
        argument.clear()
        argument.extend(changed)


def revive(kind: str, text: str) -> BaseException:
    """The built-in exception of that name, so that tests can catch it; never one that ends this process."""
    found = getattr(builtins, kind, None) if isinstance(kind, str) else None
    if isinstance(found, type) and issubclass(found, Exception):
        try:
            return found(text)
        except TypeError:
            pass
    return RemoteError(str(kind), str(text))


def safe_text(error: BaseException) -> str:
    try:
        return str(error)[:500]
    except BaseException:
        return ""
