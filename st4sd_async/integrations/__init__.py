"""Integrations with other frameworks, one module each. Each needs an extra."""

from __future__ import annotations

from typing import Any


def airflow_provider() -> dict[str, Any]:
    """
    Return what Airflow shows of this package as a provider: the entry point ``apache_airflow_provider``.

    It is not in ``airflow.py``, because Airflow calls it before its own modules can be imported.
    """
    module = f"{__name__}.airflow"
    connection = {
        "connection-type": "st4sd",
        "hook-class-name": f"{module}.St4sdHook",
        "hook-name": "ST4SD",
        "ui-field-behaviour": {
            "hidden-fields": ["schema", "login", "port"],
            "relabeling": {"host": "URL of the deployment", "password": "API key"},
            "placeholders": {"host": "https://st4sd.example"},
        },
        "conn-fields": {
            "auth_token": {
                "label": "Token",
                "description": "From <URL>/authorisation/token, if there is no API key.",
                "schema": {"type": ["string", "null"], "format": "password"},
            },
            "ca_file": {
                "label": "CA file",
                "description": "Certificate of a private authority: a file on each worker and triggerer.",
                "schema": {"type": ["string", "null"]},
            },
        },
    }
    return {
        "package-name": "st4sd-async",
        "name": "ST4SD",
        "description": "Runs virtual experiments of ST4SD, the Simulation Toolkit for Scientific Discovery.",
        "connection-types": [connection],
        "extra-links": [f"{module}.St4sdRunLink"],
    }
