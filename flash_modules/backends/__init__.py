"""Hosts: where the core's mechanisms go in their U-Nets."""
