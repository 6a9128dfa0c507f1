"""Providers that talk to `notifier sandbox` as they would to the real ones."""

from __future__ import annotations

from notifier.adapters.providers.settings import HttpSettings, SmtpSettings

_FCM_MESSAGE = """{"message": {
  "token": {{ recipient|tojson }},
  "notification": {
    "title": {{ content.subject|default('')|tojson }},
    "body": {{ content.body|default('')|tojson }}
  }{% if content.data is defined %},
  "data": { {%- for key, value in content.data|items -%}
    {{ key|string|tojson }}: {{
      ('' if value is none else value if value is string else value|tojson)|tojson }}
    {%- if not loop.last %}, {% endif -%}
  {%- endfor -%} }{% endif %}
}}"""


def sandbox_providers(
    http_url: str, smtp_host: str, smtp_port: int
) -> dict[str, SmtpSettings | HttpSettings]:
    """A provider for each of email (`smtp`), SMS (`twilio`) and push (`fcm`)."""
    return {
        "smtp": SmtpSettings(host=smtp_host, port=smtp_port, max_connections=128),
        "twilio": twilio(http_url, account="ACsandbox"),
        "fcm": fcm(http_url, project="sandbox"),
    }


def twilio(
    url: str, *, account: str, token: str = "", sender: str = "+15005550006"
) -> HttpSettings:
    """SMS as Twilio's API takes them. Error codes: twilio.com/docs/api/errors."""
    return HttpSettings(
        url=f"{url.rstrip('/')}/2010-04-01/Accounts/{account}/Messages.json",
        form={
            "To": "{{ recipient }}",
            "From": sender,
            "Body": "{{ content.body|default(content.subject|default('')) }}",
        },
        username=account if token else "",
        password=token,
        reference="sid",
        error_code=("code",),
        errors={
            "20429": "throttled",
            "21211": "refused",  # not a number
            "21408": "refused",  # a country not enabled: a 403 that is not about credentials
            "21610": "gone",  # the person unsubscribed
            "21614": "gone",  # cannot receive messages
        },
        max_connections=128,
    )


def fcm(url: str, *, project: str, token: str = "") -> HttpSettings:
    """Push as FCM's HTTP v1 takes it. Error codes: the FcmError of the FCM v1 reference."""
    return HttpSettings(
        url=f"{url.rstrip('/')}/v1/projects/{project}/messages:send",
        headers={"Authorization": f"Bearer {token}"} if token else {},
        json=_FCM_MESSAGE,
        reference="name",
        error_code=("error.details.0.errorCode", "error.status"),
        errors={
            "UNREGISTERED": "gone",
            "QUOTA_EXCEEDED": "throttled",
            "SENDER_ID_MISMATCH": "refused",
        },
        max_connections=128,
    )
