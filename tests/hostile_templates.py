"""Templates that would end or block a process, and templates that raise."""

from __future__ import annotations

from typing import Final

DOUBLED: Final = (
    "{% set ns = namespace(x=[1]) %}"
    "{% for i in range(40) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x|length }}"
)
NESTED: Final = (
    "{% set ns = namespace(x=[1]) %}"
    "{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}"
)
CHAINED: Final = (
    "{% set ns = namespace(x=[1]) %}"
    "{% for i in range(40) %}{% set ns.x = ns.x|chain(ns.x) %}{% endfor %}{{ ns.x|list|length }}"
)
GROWN: Final = (
    "{% set ns = namespace(x='aaaaaaaaaa') %}"
    "{% for i in range(40) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}"
)
OUT_OF_FUEL: Final = {
    "nested loops": (
        "{% for i in range(9999) %}{% for j in range(9999) %}a{% endfor %}{% endfor %}"
    ),
    "100 MB of a string": "{{ 'a' * 100000000 }}",
    "a string that doubles": GROWN,
    "indent": "{{ 'a'|indent(1000000000, true) }}",
    "batch": "{{ [1]|batch(1000000000, 'x')|list }}",
    "format": "{{ '%1000000000s'|format('x') }}",
    "replace": "{{ ('a' * 10000)|replace('a', 'b' * 10000) }}",
    "a macro that calls itself": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(30) }}"
    ),
}
"""The engine itself stops these."""
BEYOND_FUEL: Final = {
    "a list of 100 million": "{{ [1] * 100000000 }}",
    "a list that doubles": DOUBLED,
    "a list that nests": NESTED,
    "a list that is chained": CHAINED,
    "a namespace in itself": "{% set ns = namespace(x=1) %}{% set ns.x = ns %}{{ ns }}",
}
"""These need the limits of the renderer's process: time, memory, or an error that ends it."""
RAISING: Final = {
    "a missing variable": "{{ nobody }}",
    "a missing field": "{{ order.items }}",
    "division by zero": "{{ 1 / 0 }}",
    "an unknown filter": "{{ 1|nothing }}",
    "an unknown function": "{{ nothing() }}",
    "another template": "{% include 'body' %}",
    "endless recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "a method of Python": "{{ order.update({}) }}",
    "a class of Python": "{{ order.__class__ }}",
    "types that do not fit": "{{ 'a' - 1 }}",
    "a range too long": "{% for i in range(100000000) %}a{% endfor %}",
}
"""These raise when they are rendered, with the variables `order` and `name`."""
VARIABLES: Final = {"order": {"id": 17}, "name": "Ada <ada>"}
