"""500 realistic JSON schemas: fragments of real schemas, and seeded random combinations of their parts.

Some use keywords that token masks can't enforce; those must be refused by name.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer"}


def obj(required: str = "", /, **properties: Any) -> Schema:
    """An object schema; `required` lists names, "*" all of them."""
    names = list(properties) if required == "*" else required.split()
    return {"type": "object", "properties": properties, "required": names}


def hand_written() -> Iterator[tuple[str, Schema]]:
    """Fragments of real schemas, by name."""
    person = obj(
        "name", name=STRING, email={"type": "string", "format": "email"}, url={"type": "string", "format": "uri"}
    )
    yield (
        "package.json",
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "title": "package.json",
            **obj(
                "name version",
                name={"type": "string", "maxLength": 214, "minLength": 1, "pattern": "^[a-z0-9-~][a-z0-9-._~]*$"},
                version={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
                keywords={"type": "array", "items": STRING, "maxItems": 4},
                license={
                    "anyOf": [{"enum": ["MIT", "Apache-2.0", "BSD-3-Clause"]}, {"type": "string", "maxLength": 20}]
                },
                author={"anyOf": [STRING, person]},
                private={"type": "boolean"},
                dependencies={"type": "object", "additionalProperties": {"type": "string"}},
                scripts={"type": "object", "additionalProperties": STRING},
            ),
        },
    )
    position = {"type": "array", "minItems": 2, "maxItems": 3, "items": {"type": "number"}}
    yield "geojson point", obj("type coordinates", type={"const": "Point"}, coordinates=position)
    yield (
        "geojson feature",
        {
            "$defs": {
                "position": position,
                "point": obj("*", type={"const": "Point"}, coordinates={"$ref": "#/$defs/position"}),
                "line": obj(
                    "*",
                    type={"const": "LineString"},
                    coordinates={"type": "array", "minItems": 2, "items": {"$ref": "#/$defs/position"}},
                ),
            },
            **obj(
                "type geometry properties",
                type={"const": "Feature"},
                geometry={"anyOf": [{"$ref": "#/$defs/point"}, {"$ref": "#/$defs/line"}, {"type": "null"}]},
                properties={"anyOf": [{"type": "object"}, {"type": "null"}]},
                bbox={"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 6},
            ),
        },
    )
    yield (
        "geojson oneOf",
        {
            "oneOf": [
                obj("*", type={"const": "Point"}, coordinates=position),
                obj("*", type={"const": "MultiPoint"}, coordinates={"type": "array", "items": position}),
            ]
        },
    )
    yield (
        "openapi parameter",
        obj(
            "name in",
            name=STRING,
            **{"in": {"enum": ["query", "header", "path", "cookie"]}},
            required={"type": "boolean", "default": False},
            schema=obj(type={"enum": ["string", "integer", "array"]}, format={"type": "string"}),
            deprecated={"type": "boolean"},
        ),
    )
    yield (
        "openapi petstore",
        {
            "components": {"schemas": {"Tag": obj(id={"type": "integer", "format": "int64"}, name=STRING)}},
            **obj(
                "name photoUrls",
                id={"type": "integer", "format": "int64", "example": 10},
                name={"type": "string", "example": "doggie"},
                photoUrls={"type": "array", "items": STRING, "maxItems": 3, "xml": {"wrapped": True}},
                tags={"type": "array", "items": {"$ref": "#/components/schemas/Tag"}},
                status={"type": "string", "description": "pet status", "enum": ["available", "pending", "sold"]},
            ),
        },
    )
    yield (
        "invoice",
        obj(
            "number date lines total currency",
            number={"type": "string", "pattern": "^INV-[0-9]{6}$"},
            date={"type": "string", "format": "date"},
            due={"type": "string", "format": "date"},
            currency={"enum": ["EUR", "USD", "GBP", "CHF", "JPY"]},
            lines={
                "type": "array",
                "minItems": 1,
                "maxItems": 5,
                "items": obj(
                    "*",
                    description={"type": "string", "minLength": 1, "maxLength": 60},
                    quantity={"type": "integer", "minimum": 1, "maximum": 999},
                    unit_price={"type": "number", "minimum": 0, "multipleOf": 0.01},
                ),
            },
            total={"type": "number", "minimum": 0},
        ),
    )
    coding = obj("*", system={"type": "string", "format": "uri"}, code=STRING)
    yield (
        "fhir patient",
        obj(
            "resourceType",
            resourceType={"const": "Patient"},
            id={"type": "string", "pattern": r"^[A-Za-z0-9\-\.]{1,64}$"},
            active={"type": "boolean"},
            name={
                "type": "array",
                "items": obj(
                    use={"enum": ["usual", "official", "nickname"]},
                    family=STRING,
                    given={"type": "array", "items": STRING},
                ),
            },
            gender={"enum": ["male", "female", "other", "unknown"]},
            birthDate={"type": "string", "format": "date"},
        ),
    )
    yield (
        "fhir observation",
        obj(
            "resourceType status code",
            resourceType={"const": "Observation"},
            status={"enum": ["registered", "preliminary", "final", "amended"]},
            code=obj("coding", coding={"type": "array", "items": coding, "minItems": 1, "maxItems": 2}),
            effectiveDateTime={"type": "string", "format": "date-time"},
            valueQuantity=obj("value", value={"type": "number"}, unit=STRING),
        ),
    )
    yield (
        "linked list",
        {
            "$ref": "#/$defs/node",
            "$defs": {
                "node": obj("value", value=INTEGER, next={"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]})
            },
        },
    )
    yield (
        "file tree",
        {
            "$defs": {
                "entry": {"anyOf": [{"$ref": "#/$defs/file"}, {"$ref": "#/$defs/folder"}]},
                "file": obj("*", kind={"const": "file"}, bytes={"type": "integer", "minimum": 0}),
                "folder": obj(
                    "*",
                    kind={"const": "folder"},
                    entries={"type": "array", "items": {"$ref": "#/$defs/entry"}, "maxItems": 3},
                ),
            },
            "$ref": "#/$defs/entry",
        },
    )
    yield (
        "json ast",
        {
            "$defs": {
                "expression": {
                    "anyOf": [
                        {"type": "number"},
                        obj(
                            "*",
                            op={"enum": ["+", "-", "*", "/"]},
                            left={"$ref": "#/$defs/expression"},
                            right={"$ref": "#/$defs/expression"},
                        ),
                    ]
                }
            },
            "$ref": "#/$defs/expression",
        },
    )
    yield (
        "unicode keys",
        obj("名前 größe", 名前=STRING, größe={"type": "number"}, **{"ключ": {"type": "boolean"}, "🙂": INTEGER}),
    )
    yield "unicode values", {"enum": ["naïve", "北京", "😀", 'quo"te', "back\\slash", "new\nline", "<b>&amp;"]}
    yield (
        "quoted key",
        obj('a"b', **{'a"b': INTEGER, "c\\d": STRING, "e/f": STRING, "g~h": STRING, "": {"type": "null"}}),
    )
    yield "large enum", {"type": "string", "enum": [f"item-{i:04}" for i in range(3000)]}
    yield (
        "country codes",
        obj("*", country={"enum": [a + b for a in "ABCDEFGHIJKLMNOP" for b in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]}),
    )
    yield "all of", {"allOf": [obj("a", a=INTEGER), obj("b", b=STRING)]}
    yield "all of ranges", {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 12}]}
    yield (
        "nullable openapi",
        obj("x", x={"type": ["string", "null"], "maxLength": 10}, y={"type": "string", "nullable": True}),
    )
    yield "const object", {"const": {"a": [1, 2.5, None, True], "b": {"c": "d"}}}
    yield (
        "tuple 2020",
        {"type": "array", "prefixItems": [STRING, INTEGER, {"type": "boolean"}], "items": False, "minItems": 3},
    )
    yield (
        "tuple draft 7",
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "array",
            "items": [STRING, INTEGER],
            "additionalItems": False,
            "minItems": 2,
        },
    )
    yield (
        "draft 4",
        {
            "$schema": "http://json-schema.org/draft-04/schema#",
            "type": "object",
            "properties": {"age": {"type": "integer", "minimum": 0, "exclusiveMinimum": True, "maximum": 150}},
            "required": ["age"],
        },
    )
    yield "map of lists", {"type": "object", "additionalProperties": {"type": "array", "items": INTEGER, "maxItems": 2}}
    yield (
        "pattern properties",
        {"type": "object", "patternProperties": {"^x-[a-z]{1,4}$": STRING}, "additionalProperties": False},
    )
    yield "closed", {**obj("a", a=INTEGER, b=STRING), "additionalProperties": False}
    yield (
        "github workflow step",
        {
            **obj(
                name=STRING,
                uses={"type": "string", "pattern": "^[a-z]+/[a-z-]+@v[0-9]$"},
                **{"continue-on-error": {"type": "boolean"}},
            ),
            "additionalProperties": False,
            "minProperties": 1,
        },
    )
    yield (
        "dockerfile healthcheck",
        obj(
            test={"anyOf": [STRING, {"type": "array", "items": STRING}]},
            interval={"type": "string", "format": "duration"},
            retries={"type": "number"},
        ),
    )
    yield (
        "user",
        obj(
            "id email created",
            id={"type": "string", "format": "uuid"},
            email={"type": "string", "format": "email"},
            created={"type": "string", "format": "date-time"},
            ip={"anyOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]},
            host={"type": "string", "format": "hostname"},
            wake={"type": "string", "format": "time"},
            pointer={"type": "string", "format": "json-pointer"},
        ),
    )
    yield "anything", {}
    yield "any object", {"type": "object"}
    yield "any array", {"type": "array"}
    yield "bounded number", {"type": "number", "exclusiveMinimum": -0.5, "maximum": 1.25}
    yield "multiple", {"type": "integer", "multipleOf": 7, "minimum": 10, "maximum": 100}
    yield "deep", _nested(12)
    yield "wide", obj("*", **{f"field_{i}": {"type": ["integer", "null"]} for i in range(40)})
    # Keywords that token masks can't enforce.
    yield "set", {"type": "array", "items": INTEGER, "uniqueItems": True}
    yield "not", obj("a", a={"not": {"const": 3}})
    yield (
        "if then",
        {**obj("a", a=INTEGER, b=INTEGER), "if": {"properties": {"a": {"const": 1}}}, "then": {"required": ["b"]}},
    )
    yield "contains", {"type": "array", "contains": {"const": 1}}
    yield "property names", {"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}}
    yield "dependent", {**obj(a=INTEGER, b=INTEGER), "dependentRequired": {"a": ["b"]}}
    yield "overlapping oneOf", obj("v", v={"oneOf": [{"type": "number"}, {"type": "integer"}]})
    yield "look-ahead", {"type": "string", "pattern": r"^(?=.*\d)[a-z0-9]{8}$"}
    yield "unevaluated", {**obj(a=INTEGER), "unevaluatedProperties": False}
    yield "remote", {"$ref": "https://example.com/schema.json"}
    yield "regex format", obj("r", r={"type": "string", "format": "regex"})


def _nested(depth: int) -> Schema:
    return obj("x", x=_nested(depth - 1), y=STRING) if depth else {"type": "boolean"}


WORDS = (
    "id name title price city country email status tags items owner note größe 名前 created_at isActive x-rate".split()
)
PATTERNS = (
    "^[A-Z]{2}[0-9]{4}$", "^[a-z]+(-[a-z]+)*$", r"\d{3}", "^(red|green|blue)$", "^#[0-9a-f]{6}$", "[aeiou]", "^.{3,5}$",
    r"^\+?[0-9 ]{6,12}$", r"^\S+$", r"^[^@]+@[a-z]+\.(com|org)$", r"^v\d+(\.\d+){0,2}(-rc\.\d)?$", "^$|^N/A$", "é", r"^\w{1,8}$",
)  # fmt: skip
FORMATS = ("date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "int32", "password",
           "json-pointer", "byte", "iri")  # fmt: skip


class Generator:
    """Draws realistic random schemas."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def schema(self) -> Schema:
        """One schema: usually an object, sometimes with definitions."""
        rng = self.rng
        self.defs: Schema = {}
        self.defined = [f"Type{i}" for i in range(rng.choice((0, 0, 1, 2, 3)))]
        key = rng.choice(("$defs", "definitions"))
        self.prefix = f"#/{key}/"
        root = self.object(3) if rng.random() < 0.8 else self.any(3)
        for name in self.defined:
            # A type may contain itself further down; a direct self-reference has no meaning.
            self.defs[name] = self.object(2) if rng.random() < 0.8 else self.any(0)
        if self.defs:
            root[key] = self.defs
        if rng.random() < 0.3:
            root["title"] = rng.choice(WORDS).title()
        if rng.random() < 0.2:
            root["$schema"] = rng.choice(
                ("https://json-schema.org/draft/2020-12/schema", "http://json-schema.org/draft-07/schema#")
            )
        return root

    def any(self, depth: int) -> Schema:
        """A schema of any kind."""
        rng = self.rng
        kinds = [self.string, self.number, self.integer, self.enum, self.const, lambda: {"type": "boolean"}]
        if depth > 0:
            kinds += [lambda: self.object(depth - 1), lambda: self.array(depth - 1), lambda: self.union(depth - 1)]
            kinds += [lambda: self.all_of(depth - 1)] + ([self.reference] * 2 if self.defined else [])
        found = rng.choice(kinds)()
        if rng.random() < 0.15:
            found["description"] = "What it's for, in 'words' and \"quotes\"."
        return found

    def string(self) -> Schema:
        """A string with bounds, a pattern, a format, or nothing."""
        rng = self.rng
        out: Schema = {"type": "string"}
        kind = rng.random()
        if kind < 0.25:
            low = rng.randint(0, 6)
            out |= {"minLength": low, "maxLength": low + rng.randint(0, 12)}
        elif kind < 0.45:
            out["pattern"] = rng.choice(PATTERNS)
        elif kind < 0.7:
            out["format"] = rng.choice(FORMATS)
        return out

    def integer(self) -> Schema:
        """An integer with bounds."""
        rng = self.rng
        out: Schema = {"type": "integer"}
        if rng.random() < 0.6:
            low = rng.randint(-1000, 1000)
            out |= {rng.choice(("minimum", "exclusiveMinimum")): low, "maximum": low + rng.randint(1, 5000)}
        if rng.random() < 0.1:
            out["multipleOf"] = rng.choice((2, 5, 10, 25))
        return out

    def number(self) -> Schema:
        """A number with bounds."""
        rng = self.rng
        out: Schema = {"type": "number"}
        if rng.random() < 0.5:
            low = round(rng.uniform(-100, 100), rng.randint(0, 3))
            out |= {"minimum": low, rng.choice(("maximum", "exclusiveMaximum")): round(low + rng.uniform(0.5, 200), 2)}
        return out

    def enum(self) -> Schema:
        """Some values, of one kind or several."""
        rng = self.rng
        values: list[Any] = [f"{rng.choice(WORDS)}-{i}" for i in range(rng.choice((1, 3, 8, 60, 300)))]
        if rng.random() < 0.3:
            values += [None, 3, 2.5, True]
        return (
            {"enum": values}
            if rng.random() < 0.5 or len(values) != len([v for v in values if isinstance(v, str)])
            else {"type": "string", "enum": values}
        )

    def const(self) -> Schema:
        """One value."""
        return {"const": self.rng.choice(("on", 7, None, "ünïcode", -1.5, [1, "a"], {"k": "v"}, False))}

    def array(self, depth: int) -> Schema:
        """A list with bounds."""
        rng = self.rng
        out: Schema = {"type": "array", "items": self.any(depth)}
        if rng.random() < 0.6:
            low = rng.randint(0, 2)
            out |= {"minItems": low, "maxItems": low + rng.randint(0, 3)}
        if rng.random() < 0.06:
            out["uniqueItems"] = True
        return out

    def object(self, depth: int) -> Schema:
        """An object, open or closed."""
        rng = self.rng
        names = rng.sample(WORDS, rng.randint(1, 6))
        out: Schema = {"type": "object", "properties": {name: self.any(depth) for name in names}}
        if rng.random() < 0.85:
            out["required"] = [name for name in names if rng.random() < 0.6]
        kind = rng.random()
        if kind < 0.5:
            out["additionalProperties"] = False
        elif kind < 0.6:
            out["additionalProperties"] = self.any(0)
        elif kind < 0.64:
            out["patternProperties"] = {"^ext_[a-z]+$": self.any(0)}
        elif kind < 0.66:
            out["minProperties"] = 1
        elif kind < 0.68:
            out["maxProperties"] = rng.randint(max(len(out.get("required", ())), 1), 7)
        return out

    def union(self, depth: int) -> Schema:
        """Several schemas, of which any or exactly one applies."""
        rng = self.rng
        branches = [self.any(depth) for _ in range(rng.randint(2, 3))]
        if rng.random() < 0.4:
            branches.append({"type": "null"})
        return {"oneOf" if rng.random() < 0.25 else "anyOf": branches}

    def all_of(self, depth: int) -> Schema:
        """Two schemas that both apply."""
        if self.rng.random() < 0.5:
            return {"allOf": [self.any(depth)], "description": "a wrapped one"}
        one, two = self.object(0), self.object(0)
        two["properties"] = {f"{name}2": value for name, value in two["properties"].items()}
        two["required"] = [f"{name}2" for name in two.get("required", ())]
        one.pop("additionalProperties", None)
        two.pop("additionalProperties", None)
        return {"allOf": [one, two]}

    def reference(self) -> Schema:
        """A reference to a definition."""
        return {"$ref": self.prefix + self.rng.choice(self.defined)}


def corpus(count: int = 500, seed: int = 0) -> list[tuple[str, Schema]]:
    """Named schemas: the hand-written ones, then seeded ones up to `count`."""
    found = list(hand_written())
    generator = Generator(seed)
    found += [(f"drawn {i}", generator.schema()) for i in range(count - len(found))]
    return found[:count]
