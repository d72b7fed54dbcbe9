"""Networks that judge videos, from files that the user has. Nothing is fetched."""
