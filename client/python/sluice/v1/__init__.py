"""Messages of Sluice's job API, generated from proto/sluice/v1."""
