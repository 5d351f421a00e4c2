"""Changes of a file's content, drawn from a ``random.Random``: of any bytes, of JSON and lines of it, of safetensors
files, of checkpoints with their digest made right again, and of ONNX files field by field.
"""

import contextlib
import json

import numpy as np

DEEP = "[" * 900 + "]" * 900
RAW = [
    "null", "true", "false", "-1", "0", "1", "2", "1.5", "-0.0", "1e-320", "1e308", "1e400", "NaN", "-Infinity", "1e30",
    str(2**31), str(2**63), str(2**64), str(10**30), "9" * 400, "9" * 5000, '""', '"x"', '"' + "y" * 10_000 + '"',
    '"\\ud800"', '"\\u0000"', '"\\u001b[31m"', '"../../../outside/kept"', '"/etc/passwd"', "[]", "{}", "[[]]", "[null]",
    '{"array": 2}', '{"array": []}', '{"array": "x"}', '{"dict": []}', '{"dict": {}}', "[" + "1," * 999 + "1]",
    '{"type": "Sequential", "config": {}}', DEEP, "[" * 100_000 + "]" * 100_000, '{"a":' * 2000 + "1" + "}" * 2000,
]  # fmt: skip


def mutate_bytes(data, rng):
    data = bytearray(data)
    at = lambda: rng.randrange(len(data) + 1)  # noqa: E731
    kind = rng.choice(["flip", "flip", "cut", "cut", "grow", "block", "number", "double", "empty", "head"])
    if kind == "flip":
        for _ in range(rng.choice([1, 1, 2, 8, 64])):
            if data:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[at() :]
    elif kind == "grow":
        data += rng.randbytes(rng.choice([1, 7, 1000]))
    elif kind == "block":
        start, what = at(), rng.choice([b"\0", b"\xff", rng.randbytes(8)])
        data[start : start + rng.choice([1, 4, 64])] = what * rng.choice([1, 8])
    elif kind == "number":
        start, size = at(), rng.choice([1, 2, 4, 8])
        value = rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]) % 256**size
        data[start : start + size] = value.to_bytes(size, rng.choice(["big", "little"]))
    elif kind == "double":
        start = at()
        data[start:start] = data[start : start + rng.choice([1, 16, 1000])]
    elif kind == "empty":
        data = bytearray(rng.choice([b"", b"\0" * 64, b"{}", b"[]", b"null\n", b"\xef\xbb\xbf{}"]))
    elif data:
        for i in range(min(32, len(data))):
            if rng.random() < 0.1:
                data[i] = rng.randrange(256)
    return bytes(data)


def places(value, found=None):
    """Return (container, key) of all that is in a JSON value."""
    found = [] if found is None else found
    for key, item in list(value.items()) if isinstance(value, dict) else enumerate(value):
        found.append((value, key))
        if isinstance(item, dict | list):
            places(item, found)
    return found


def mutate_json(text, rng):
    """Return a JSON text with one or a few entries changed; any text, not all of it JSON."""
    value = [json.loads(text)]
    raw = {}
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        spots = places(value)
        container, key = rng.choice(spots)
        item = container[key]
        kind = rng.choice(["raw", "raw", "raw", "raw", "delete", "rename", "swap", "wrap", "number", "text"])
        if kind == "number" and isinstance(item, int | float):
            container[key] = rng.choice([-item, item + 1, item * 10**6, item / 3, str(item), [item], not item])
        elif kind == "delete" and container is not value:
            del container[key]
        elif kind == "rename" and isinstance(container, dict):
            container[rng.choice(["", "x", "__class__", key + "x", "\x1b[31m"])] = container.pop(key)
        elif kind == "swap":
            other, at = rng.choice(spots)
            container[key] = json.loads(json.dumps(other[at]))
        elif kind == "wrap":
            container[key] = rng.choice([[item], {"x": item}, [item] * 3])
        elif kind == "text" and isinstance(item, str):
            container[key] = mutate_bytes(item.encode(), rng).decode("utf-8", "replace")
        else:
            mark = f"@@{len(raw)}@@"
            raw[mark] = rng.choice(RAW)
            container[key] = mark
    text = json.dumps(value)[1:-1]
    for mark, what in raw.items():
        text = text.replace(f'"{mark}"', what)
    return text


def mutate_lines(data, rng):
    lines = data.decode("utf-8", "replace").splitlines()
    kind = rng.choice(["json", "json", "json", "bytes", "swap", "delete", "double"])
    if kind == "bytes" or not lines:
        return mutate_bytes(data, rng)
    at = rng.randrange(len(lines))
    if kind == "json":
        lines[at] = mutate_json(lines[at], rng)
    elif kind == "swap":
        other = rng.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == "delete":
        del lines[at]
    else:
        lines.insert(rng.randrange(len(lines)), lines[at])
    return ("\n".join(lines) + "\n").encode("utf-8", "replace")


def mutate_model(data, rng):
    """Change a safetensors file: anywhere, or its header, or the JSON in its metadata, with the length made right."""
    kind = rng.choice(["bytes", "header", "inner", "inner"])
    if kind == "bytes":
        return mutate_bytes(data, rng)
    size = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + size].decode(), data[8 + size :]
    parsed = json.loads(header)
    metadata = parsed.get("__metadata__", {})
    if kind == "header" or "fastconv" not in metadata:
        header = mutate_json(header, rng)
    else:
        metadata["fastconv"] = mutate_json(metadata["fastconv"], rng)
        header = json.dumps(parsed)
    text = header.encode("utf-8", "replace")
    return len(text).to_bytes(8, "little") + text + rest


def mutate_checkpoint(path, rng):
    """Change the state of a checkpoint or its arrays, with the digest made right again; or just its bytes."""
    from fastconv.serialize import load_arrays, save_arrays
    from fastconv.train.digest import arrays_sha256

    kind = rng.choice(["bytes", "state", "state", "state", "arrays"])
    if kind == "bytes":
        path.write_bytes(mutate_bytes(path.read_bytes(), rng))
        return
    arrays, strings = load_arrays(path)
    text = strings["fastconv.checkpoint"]
    if kind == "state":
        text = mutate_json(text, rng).encode("utf-8", "replace").decode()
    else:
        name = rng.choice(sorted(arrays))
        array = arrays[name]
        changed = [
            array * np.float64(np.nan), array.astype(np.float64), array.ravel(), array[..., None],
            array.astype(np.int64), np.zeros((0, *array.shape[1:])), -array, array + 2**40, np.float32([]),
            np.full(array.shape, np.inf),
        ]  # fmt: skip
        arrays[name] = np.ascontiguousarray(rng.choice(changed))
        if rng.random() < 0.2:
            arrays[rng.choice(["x", "../x"])] = arrays.pop(name)
    save_arrays(path, arrays, {"fastconv.checkpoint": text, "sha256": arrays_sha256(sorted(arrays.items()), text)})


def held(message):
    """Yield (message, name of a field, place) of all that a protobuf message holds; place is None if it is no list."""
    for field, value in message.ListFields():
        single = isinstance(value, bool | int | float | str | bytes) or hasattr(value, "ListFields")
        for place in [None] if single else range(len(value)):
            yield message, field.name, place
            item = item_of(message, field.name, place)
            if hasattr(item, "ListFields"):
                yield from held(item)


def item_of(message, name, place):
    value = getattr(message, name)
    return value if place is None else value[place]


def mutate_field(proto, rng):
    """Change one field of a protobuf message, or of one inside it, to something of the field's type."""
    spots = list(held(proto))
    message, name, place = rng.choice(spots)
    value, entries = item_of(message, name, place), getattr(message, name)
    alike = [item for item in (item_of(*spot) for spot in spots) if type(item) is type(value)]
    kind = rng.random()
    if place is not None and kind < 0.1:
        del entries[place]
    elif place is not None and kind < 0.2:
        entries.append(value)
    elif hasattr(value, "ListFields"):
        value.CopyFrom(type(value).FromString(rng.choice(alike).SerializeToString()))
    else:
        if isinstance(value, bytes):
            new = mutate_bytes(value, rng)
        elif isinstance(value, str):
            new = rng.choice([rng.choice(alike), rng.choice(alike), "", "\x1b[31m", "../outside/kept", "/etc/passwd"])
        elif isinstance(value, float):
            new = rng.choice([0.0, -1.0, 1e-45, 3e38, float("inf"), float("nan"), value * 3])
        else:
            new = rng.choice([-1, 0, 1, 2, 3, 7, 2**16, 2**31 - 1, -(2**31), 2**40, 2**62, -(2**63), value + 1])
        with contextlib.suppress(ValueError):  # the field is narrower, or a list of names that are known
            if place is None:
                setattr(message, name, new)
            else:
                entries[place] = new


def mutate_onnx(data, rng):
    """Change some fields of an ONNX file; or just its bytes."""
    import onnx

    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    proto = onnx.ModelProto.FromString(data)
    for _ in range(rng.choice([1, 1, 2, 4])):
        mutate_field(proto, rng)
    return proto.SerializeToString()
