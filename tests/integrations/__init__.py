"""Tests of the integrations with other frameworks."""
