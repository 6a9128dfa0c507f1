"""Checks of docker-compose.yml and the files under deploy/ that only read the files."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from notifier import __version__
from notifier.adapters.providers.registry import PROVIDER_TYPES
from notifier.settings import Settings, WorkerSettings, convert_table, load_settings

ROOT = Path(__file__).resolve().parents[2]
IMAGE = f"notifier-engine:{__version__}"
ONCE = {"migrate", "first-key"}
OURS = ONCE | {"api", "worker", "sandbox"}
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: Mapping[str, Mapping[str, Any]] = COMPOSE["services"]
MANIFESTS = [
    document
    for path in sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]
REGISTRY_HOST = re.compile(r"^[\w-]+(\.[\w-]+)+(:\d+)?/|^localhost[:/]")
GRACE_S = WorkerSettings().grace_s + 10


def of_kind(*kinds: str) -> list[Mapping[str, Any]]:
    return [manifest for manifest in MANIFESTS if manifest["kind"] in kinds]


def pods() -> list[Mapping[str, Any]]:
    return [manifest["spec"]["template"]["spec"] for manifest in of_kind("Deployment", "Job")]


def containers() -> list[Mapping[str, Any]]:
    return [container for pod in pods() for container in pod["containers"]]


def with_defaults(value: str) -> str:
    """Return the value that compose uses if no variable is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def environment_of(service: str) -> dict[str, str]:
    variables = SERVICES[service].get("environment", {})
    return {name: with_defaults(str(value)) for name, value in variables.items()}


def bound_paths() -> Iterator[tuple[str, Path]]:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                yield name, ROOT / source


def images() -> list[str]:
    built = re.findall(r"(?m)^FROM (\S+)", (ROOT / "deploy/Dockerfile").read_text())
    return [
        *built,
        *(service["image"] for service in SERVICES.values()),
        *(container["image"] for container in containers()),
    ]


def assert_providers_are_valid(settings: Settings) -> None:
    for name, table in settings.providers.items():
        convert_table(table, PROVIDER_TYPES, key=f"providers.{name}")


def test_ports_are_published_on_loopback_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) > 3
    assert [port for port in ports if not str(port).startswith("127.0.0.1:")] == []


def test_postgres_and_workers_publish_no_port_and_no_service_has_a_fixed_name() -> None:
    assert not any("ports" in SERVICES[name] for name in ("postgres", "worker"))
    assert not any("5672:" in port.partition("}")[2] for port in SERVICES["rabbitmq"]["ports"])
    assert not any("container_name" in service for service in SERVICES.values())


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_containers_are_restricted(name: str) -> None:
    service = SERVICES[name]
    assert service["image"] == IMAGE
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["stop_grace_period"] == f"{GRACE_S:g}s"
    assert "user" not in service  # the image sets a user other than root


def test_every_service_has_limits_and_a_rotated_log() -> None:
    for name, service in SERVICES.items():
        assert {"mem_limit", "cpus", "logging"} <= set(service), name
        assert service["cpus"] <= 1, name


def test_a_service_that_another_waits_for_has_a_health_check() -> None:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[needed], f"{name} waits for {needed}"
        assert ("healthcheck" in service) == (name not in ONCE)


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_variable_of_our_services_is_a_setting(name: str, tmp_path: Path) -> None:
    settings = load_settings(environment_of(name), cwd=tmp_path)
    assert_providers_are_valid(settings)


def test_all_addresses_in_compose_are_services_of_the_file(tmp_path: Path) -> None:
    settings = load_settings(environment_of("worker"), cwd=tmp_path)
    addresses = [
        settings.database.url,
        settings.broker.url,
        *(str(of.get("url") or f"//{of['host']}/") for of in settings.providers.values()),
    ]
    hosts = {address.partition("//")[2].partition("/")[0] for address in addresses}
    assert {host.rpartition("@")[2].partition(":")[0] for host in hosts} <= set(SERVICES)


def test_our_urls_match_the_accounts_of_postgres_and_rabbitmq() -> None:
    account, url = environment_of("postgres"), environment_of("api")["NOTIFIER_DATABASE_URL"]
    assert url == (
        f"postgresql://{account['POSTGRES_USER']}:{account['POSTGRES_PASSWORD']}"
        f"@postgres/{account['POSTGRES_DB']}"
    )
    account, url = environment_of("rabbitmq"), environment_of("api")["NOTIFIER_BROKER_URL"]
    user, password = account["RABBITMQ_DEFAULT_USER"], account["RABBITMQ_DEFAULT_PASS"]
    assert url == f"amqp://{user}:{password}@rabbitmq/"


def test_no_variable_of_the_env_file_looks_like_a_setting() -> None:
    """Notifier reads the same `.env` and rejects unknown variables with its prefix."""
    variables = re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text())
    assert variables
    assert [name for name in variables if name.startswith("NOTIFIER_")] == []


def test_mounted_files_exist_and_are_read_only() -> None:
    paths = list(bound_paths())
    assert len(paths) > 5
    assert [(name, str(path)) for name, path in paths if not path.exists()] == []
    volumes = [volume for service in SERVICES.values() for volume in service.get("volumes", ())]
    assert [name for name in volumes if name.startswith(".") and not name.endswith(":ro")] == []


def test_every_image_is_pinned_and_from_the_default_registry() -> None:
    for image in images():
        _, _, tag = image.partition(":")
        assert re.search(r"\d", tag), f"{image} names no version"
        assert not REGISTRY_HOST.search(image), image


def test_the_tag_of_our_image_is_its_version() -> None:
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    assert f'image.version="{__version__}"' in dockerfile
    assert {image for image in images() if image.startswith("notifier")} == {IMAGE}


def test_every_variable_of_the_image_is_a_setting(tmp_path: Path) -> None:
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    variables = dict(re.findall(r"(NOTIFIER_\w+)=(\S+)", dockerfile))
    settings = load_settings(variables, cwd=tmp_path)
    assert {settings.api.host, settings.worker.metrics_host, settings.sandbox.host} == {"0.0.0.0"}


def test_prometheus_scrapes_the_ports_of_existing_services() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    scraped = {
        (name, target["port"])
        for job in config["scrape_configs"]
        for target in job.get("dns_sd_configs", ())
        for name in target["names"]
    }
    settings = Settings()
    assert scraped == {("api", settings.api.port), ("worker", settings.worker.metrics_port)}
    static = [
        target.partition(":")[0]
        for job in config["scrape_configs"]
        for group in job.get("static_configs", ())
        for target in group["targets"]
    ]
    assert set(static) - {"127.0.0.1"} <= set(SERVICES)


def test_alerts_are_routed_by_severity_to_existing_receivers() -> None:
    config = yaml.safe_load((ROOT / "deploy/alertmanager/alertmanager.yml").read_text())
    receivers = {receiver["name"]: receiver for receiver in config["receivers"]}
    route = config["route"]
    assert {route["receiver"], *(child["receiver"] for child in route["routes"])} == set(receivers)
    assert set(receivers) == {"page", "ticket"}
    assert [child["matchers"] for child in route["routes"]] == [['severity="page"']]


def test_the_grace_period_of_pods_covers_the_stop_of_a_worker() -> None:
    (settings,) = of_kind("ConfigMap")
    worker = tomllib.loads(settings["data"]["notifier.toml"])["worker"]
    for deployment in of_kind("Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] == worker["grace_s"] + 10 == GRACE_S


def test_the_settings_of_the_config_map_are_valid(tmp_path: Path) -> None:
    (config_map,) = of_kind("ConfigMap")
    (secret,) = of_kind("Secret")
    for name, value in secret["stringData"].items():
        (tmp_path / name).write_text(value)
    text = config_map["data"]["notifier.toml"].replace("/run/secrets/notifier", str(tmp_path))
    (tmp_path / "notifier.toml").write_text(text)
    mounted = {
        variable["name"]: variable["value"].replace("/run/secrets/notifier", str(tmp_path))
        for container in containers()
        for variable in container["env"]
    }
    settings = load_settings({"NOTIFIER_CONFIG": "notifier.toml", **mounted}, cwd=tmp_path)
    assert_providers_are_valid(settings)
    assert settings.database.url == secret["stringData"]["database_url"]
    assert settings.broker.url == secret["stringData"]["broker_url"]


def test_pods_are_restricted() -> None:
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
    for container in containers():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]


def test_probes_use_the_two_health_endpoints() -> None:
    for container in (container for container in containers() if "ports" in container):
        paths = {
            probe: container[probe]["httpGet"]["path"] for probe in container if "Probe" in probe
        }
        assert paths == {
            "startupProbe": "/health/live",
            "livenessProbe": "/health/live",
            "readinessProbe": "/health/ready",
        }


def test_every_metric_of_the_autoscaler_has_a_recording_rule() -> None:
    (autoscaler,) = of_kind("HorizontalPodAutoscaler")
    rules = (ROOT / "deploy/prometheus/rules/autoscaling.yml").read_text()
    recorded = re.findall(r"record: (\S+)", rules)
    comment = (ROOT / "deploy/kubernetes/worker-autoscaler.yaml").read_text()
    metrics = [metric["external"]["metric"]["name"] for metric in autoscaler["spec"]["metrics"]]
    assert len(metrics) == len(recorded)
    for rule, name in zip(recorded, metrics, strict=True):
        assert f"^{rule}$" in comment
        assert f"as: {name} " in comment


def test_every_manifest_except_the_example_secret_is_applied() -> None:
    (kustomization,) = of_kind("Kustomization")
    folder = ROOT / "deploy/kubernetes"
    manifests = {path.name for path in folder.glob("*.yaml")}
    assert set(kustomization["resources"]) == manifests - {
        "kustomization.yaml",
        "secret.example.yaml",
    }
    assert [f"{image['name']}:{image['newTag']}" for image in kustomization["images"]] == [IMAGE]
