"""The renderer's process: what it renders, and what it survives."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
import pytest

from notifier.adapters.templating import renderer as renderer_module
from notifier.adapters.templating.renderer import ChildRenderer, open_renderer
from notifier.domain.errors import RendererUnavailable
from notifier.domain.templates import FaultKind, TemplateFault
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.ports.templates import RenderJob
from tests.hostile_templates import BEYOND_FUEL, OUT_OF_FUEL, RAISING, VARIABLES
from tests.stored_templates import email_template

LIMIT = 262_144


@pytest.fixture
async def renderer() -> AsyncIterator[ChildRenderer]:
    async with open_renderer() as opened:
        yield opened


def job(
    variables: Mapping[str, object] | None = None,
    *,
    schema: object = None,
    tenant: TenantId = DEFAULT_TENANT,
    **parts: object,
) -> RenderJob:
    given = VARIABLES if variables is None else variables
    return RenderJob(
        tenant,
        msgspec.json.encode(parts),
        msgspec.json.encode(given),
        LIMIT,
        b"" if schema is None else msgspec.json.encode(schema),
    )


async def rendered(renderer: ChildRenderer, made: RenderJob) -> Mapping[str, Any]:
    parts = await renderer.render(made)
    assert isinstance(parts, dict), parts
    return parts


async def fault(renderer: ChildRenderer, made: RenderJob) -> TemplateFault:
    faults = await renderer.render(made)
    assert not isinstance(faults, Mapping), faults
    return faults[0]


async def test_html_is_escaped_and_nothing_else_is(renderer: ChildRenderer) -> None:
    parts = await rendered(
        renderer,
        job(
            subject="{{ name }}",
            body="{{ name }}",
            html="<p>{{ name }}</p>",
            data={"n": "{{ name }}"},
        ),
    )
    assert parts == {
        "subject": "Ada <ada>",
        "body": "Ada <ada>",
        "html": "<p>Ada &lt;ada&gt;</p>",
        "data": {"n": "Ada <ada>"},
    }


@pytest.mark.parametrize("source", OUT_OF_FUEL.values(), ids=OUT_OF_FUEL)
async def test_the_engine_stops_endless_templates(renderer: ChildRenderer, source: str) -> None:
    await renderer.render(job(body="warm"))
    before = pid(renderer)
    found = await fault(renderer, job(body=source))
    assert (found.kind, found.part) == (FaultKind.LIMIT, "body")
    assert pid(renderer) == before


@pytest.mark.parametrize("source", BEYOND_FUEL.values(), ids=BEYOND_FUEL)
async def test_the_limits_of_the_process_stop_the_others_and_the_next_is_rendered(
    renderer: ChildRenderer, source: str
) -> None:
    found = await fault(renderer, job(body=source))
    assert found.kind in {FaultKind.LIMIT, FaultKind.ERROR}
    assert await rendered(renderer, job(body="Hi {{ name }}")) == {"body": "Hi Ada <ada>"}


@pytest.mark.parametrize("source", RAISING.values(), ids=RAISING)
async def test_what_raises_names_its_part_and_line_and_no_value(
    renderer: ChildRenderer, source: str
) -> None:
    secret = {"order": {"id": 4711}, "name": "secret-code"}
    found = await fault(renderer, job(secret, html=f"first line\n{source}"))
    assert found.part == "html"
    assert found.kind in {FaultKind.UNDEFINED, FaultKind.ERROR}
    assert "4711" not in str(found)
    assert "secret-code" not in str(found)


async def test_an_error_with_values_in_its_text_shows_none(renderer: ChildRenderer) -> None:
    found = await fault(renderer, job({"code": 123456}, body="{{ code / 0 }}"))
    assert "123456" not in str(found)


@pytest.mark.parametrize(
    "expression",
    [
        "missing|tojson",
        "missing|urlencode",
        "missing|e",
        "missing|length",
        "order.missing|count",
        "null_one",
        "order.null_one",
        "order.items",
        "order.keys",
        "list.count",
    ],
)
async def test_an_undefined_name_is_an_error_also_in_a_filter(
    renderer: ChildRenderer, expression: str
) -> None:
    variables = {"order": {"null_one": None}, "null_one": None, "list": [1]}
    await fault(renderer, job(variables, body=f"{{{{ {expression} }}}}"))
    defaulted = f"{{{{ ({expression.partition('|')[0]})|default('none') }}}}"
    assert await rendered(renderer, job(variables, body=defaulted)) == {"body": "none"}


async def test_objects_and_arrays_of_the_variables_work_as_in_jinja(
    renderer: ChildRenderer,
) -> None:
    variables = {"o": {"items": [{"n": 1}, {"n": 2}], "b": True}, "a": [3, 1, 2]}
    source = (
        "{% for i in o.items %}{{ i.n }}{% endfor %} {{ o|length }} {{ a|sort|join('-') }} "
        "{{ a[0] }} {{ 'b' in o }} {% for k, v in o|items %}{{ k }} {% endfor %}{{ o|tojson }}"
    )
    assert await rendered(renderer, job(variables, body=source)) == {
        "body": '12 2 1-2-3 3 True items b {"items": [{"n": 1}, {"n": 2}], "b": true}'
    }


async def test_an_object_in_html_is_escaped(renderer: ChildRenderer) -> None:
    parts = await rendered(renderer, job({"o": {"x": "<b>"}, "a": ["<i>"]}, html="{{ o }}{{ a }}"))
    assert "<" not in parts["html"]


async def test_a_text_that_is_too_long_is_a_fault(renderer: ChildRenderer) -> None:
    found = await fault(renderer, job({"x": "a" * 60_000}, body="{{ x }}" * 5))
    assert (found.kind, found.part) == (FaultKind.LIMIT, "body")


async def test_what_fits_the_schema_is_rendered_and_all_other_fields_are_named(
    renderer: ChildRenderer,
) -> None:
    schema = {
        "type": "object",
        "required": ["name", "code"],
        "properties": {
            "name": {"type": "string"},
            "code": {"type": "string", "pattern": "^[0-9]{6}$"},
        },
    }
    good = {"name": "Ada", "code": "123456"}
    assert await rendered(renderer, job(good, schema=schema, body="{{ code }}")) == {
        "body": "123456"
    }
    faults = await renderer.render(
        job({"name": 7, "code": "secret-code"}, schema=schema, body="{{ code }}")
    )
    assert not isinstance(faults, Mapping)
    assert sorted(each.part for each in faults) == ["variables.code", "variables.name"]
    assert "secret-code" not in str(faults)


@pytest.mark.parametrize(
    ("schema", "is_usable"),
    [
        ({"properties": {"a": {"pattern": "^(a+)+$"}}}, True),
        ({"$ref": "#"}, True),
        ({"$ref": "http://127.0.0.1:1/schema"}, False),
        ({"$ref": "file:///etc/passwd"}, False),
        ({"properties": {"a": {"pattern": "(?=a)b"}}}, False),
        ({"properties": {"a": {"pattern": "(a{1000}){1000}"}}}, False),
        ({"type": "nosuch"}, False),
    ],
)
async def test_a_schema_has_no_remote_reference_and_no_pattern_that_backtracks(
    renderer: ChildRenderer, schema: Mapping[str, object], *, is_usable: bool
) -> None:
    document = {"default_locale": "en", "locales": {"en": {"sms": {"body": "x"}}}, "schema": schema}
    compiled = await renderer.compile(DEFAULT_TENANT, msgspec.json.encode(document))
    assert isinstance(compiled, bytes) is is_usable, compiled
    if is_usable:
        slow = {"a": "a" * 60_000 + "b"}
        await renderer.render(job(slow, schema=schema, body="x"))


async def test_mjml_becomes_html_that_is_rendered_as_a_template(renderer: ChildRenderer) -> None:
    mjml = (
        "<mjml><mj-body><mj-section><mj-column><mj-text>Hello {{ name }}</mj-text>"
        "</mj-column></mj-section></mj-body></mjml>"
    )
    compiled = await renderer.compile(
        DEFAULT_TENANT, msgspec.json.encode(email_template(mjml=mjml))
    )
    assert isinstance(compiled, bytes), compiled
    parts = msgspec.json.decode(compiled)["locales"]["en"]["email"]
    assert parts.keys() == {"subject", "html"}
    html = (await rendered(renderer, job(**parts)))["html"]
    assert "Hello Ada &lt;ada&gt;" in html


@pytest.mark.parametrize(
    "mjml",
    [
        "<html></html>",
        "<mjml><mj-body>",
        '<mjml><mj-body><mj-include path="/etc/passwd"/></mj-body></mjml>',
        "<mjml><mj-body>" + "<mj-wrapper>" * 20_000,
        f"<mjml><mj-body><mj-raw>{'<b>' * 30_000}{'</b>' * 30_000}</mj-raw></mj-body></mjml>",
        "<mjml><mj-body><mj-column>🎉>",
    ],
    ids=["no mjml", "cut off", "include", "deep", "deep inside", "panic of the library"],
)
async def test_mjml_that_cannot_be_compiled_is_a_fault(renderer: ChildRenderer, mjml: str) -> None:
    faults = await renderer.compile(DEFAULT_TENANT, msgspec.json.encode(email_template(mjml=mjml)))
    assert not isinstance(faults, bytes)
    assert await rendered(renderer, job(body="x")) == {"body": "x"}


async def test_a_cancelled_request_leaves_no_answer_to_the_next(renderer: ChildRenderer) -> None:
    await renderer.render(job(body="warm"))
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(renderer.render(job(body=BEYOND_FUEL["a list that nests"])))
        await asyncio.sleep(0.05)
        asking.cancel()
    assert await rendered(renderer, job(body="after")) == {"body": "after"}


async def test_requests_at_once_get_their_own_answers(renderer: ChildRenderer) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(rendered(renderer, job({"n": n}, body="{{ n }}"))) for n in range(50)
        ]
    assert [task.result()["body"] for task in tasks] == [str(n) for n in range(50)]


async def test_a_tenant_waits_for_one_request_of_another_however_many_it_makes(
    renderer: ChildRenderer,
) -> None:
    await renderer.render(job(body="warm"))
    answered: list[str] = []

    async def ask(tenant: str, body: str, times: int = 1) -> None:
        for _ in range(times):
            await renderer.render(job(tenant=TenantId(tenant), body=body))
            answered.append(tenant)

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(ask("slow", BEYOND_FUEL["a list of 100 million"]))
        group.create_task(ask("shop", "{{ name }}", times=50))
    assert answered == ["slow", *["shop"] * 50, *["slow"] * 7]


async def test_the_process_has_no_environment_of_ours_and_ends_with_the_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NOTIFIER_DATABASE_URL", "postgresql://user:secret@host/db")
    async with open_renderer() as renderer:
        await renderer.render(job(body="x"))
        number = pid(renderer)
        with open(f"/proc/{number}/environ", "rb") as environ:  # noqa: PTH123 of the kernel
            assert b"secret" not in environ.read()
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def pid(renderer: ChildRenderer) -> int:
    process = renderer._process
    assert process is not None
    return process.pid


async def test_a_renderer_that_somebody_killed_is_started_again(renderer: ChildRenderer) -> None:
    await renderer.render(job(body="warm"))
    killed = pid(renderer)
    os.kill(killed, signal.SIGKILL)
    assert await rendered(renderer, job(body="after")) == {"body": "after"}
    assert pid(renderer) != killed


async def test_a_renderer_that_does_not_run_is_no_fault_of_the_template(
    renderer: ChildRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renderer_module, "_MODULE", "notifier.nothing")
    with pytest.raises(RendererUnavailable):
        await renderer.render(job(body="x"))
    monkeypatch.undo()
    assert await rendered(renderer, job(body="x")) == {"body": "x"}


def test_the_limit_of_memory_holds_below_a_hard_limit_of_the_process() -> None:
    lines = (
        "import resource",
        "from notifier.adapters.templating import child",
        "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))",
        "child._limit_memory(1 << 30)",
        "print(*resource.getrlimit(resource.RLIMIT_AS))",
    )
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(1 << 30), str(4 << 30)]
