"""Settings of providers that talk to `notifier sandbox` as they would to the real services."""

from __future__ import annotations

from notifier.adapters.providers.fcm.settings import FcmSettings
from notifier.adapters.providers.http.settings import HttpSettings
from notifier.adapters.providers.settings import ProviderSettings
from notifier.adapters.providers.smtp.settings import SmtpSettings


def sandbox_providers(http_url: str, smtp_host: str, smtp_port: int) -> dict[str, ProviderSettings]:
    """The settings of one provider each for email (`smtp`), SMS (`twilio`) and push (`fcm`)."""
    return {
        "smtp": SmtpSettings(host=smtp_host, port=smtp_port, max_connections=128),
        "twilio": twilio(http_url, account="ACsandbox"),
        "fcm": FcmSettings(url=http_url, max_connections=128),
    }


def twilio(
    url: str, *, account: str, token: str = "", sender: str = "+15005550006"
) -> HttpSettings:
    """SMS over Twilio's API. Error codes: twilio.com/docs/api/errors."""
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
        answers={
            "20429": "throttled",
            "21211": "refused",  # not a number
            "21212": "misconfigured",  # our number is not valid
            "21408": "refused",  # the country is not enabled: a 403 that is not about credentials
            "21606": "misconfigured",  # our number cannot send to this country
            "21610": "gone",  # the recipient unsubscribed
            "21611": "throttled",  # too many messages wait for our number
            "21614": "gone",  # the number cannot receive messages
            "21659": "misconfigured",  # our number is not of this account
        },
        max_connections=128,
    )
