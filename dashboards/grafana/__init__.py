"""Grafana's dashboards, built: `python -m dashboards.grafana` writes boards/*.json, which compose provisions.

Plain Python over Grafana's JSON model: the Foundation SDK is published a package per Grafana release, up to 11.6, under
version numbers that pip cannot order.
"""
