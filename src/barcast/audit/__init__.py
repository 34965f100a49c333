"""Leak checks: what the pipeline would have said if the future had been another one."""

from barcast.audit.findings import AuditReport, Check, Finding
from barcast.audit.run import AuditSettings, audit_features, audit_run

__all__ = ["AuditReport", "AuditSettings", "Check", "Finding", "audit_features", "audit_run"]
