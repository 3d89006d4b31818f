"""Limiters whose state lives in Redis, Valkey or Redis Cluster; one script call a decision."""
